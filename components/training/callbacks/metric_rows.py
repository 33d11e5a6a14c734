"""Rows of metrics.jsonl: one per logged step, over the steps since the row before it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from components.training.callbacks.callback import Callback, CallbackState
from components.training.monitoring.step_metrics import Row, StepFigures, peak_memory

# The fields of StepFigures that a row adds up over its steps.
SUMMED = (
    "loss",
    "samples",
    "tokens",
    "micro_steps",
    "idle",
    "seconds",
    "data_seconds",
    "flops",
    "tokens_computed",
    "patches",
    "patches_computed",
)


@dataclass(kw_only=True)
class MetricRows(Callback):
    """Collects steps into metrics rows. Its state holds the rows and the open sums: a resumed run writes the same rows.

    Args:
        every: steps between two rows.
        evaluate_every: steps between two evaluations; None: there are none. An evaluated step has a row.
        steps: optimizer steps of the whole training.
        peak_flops: FLOP/s of all ranks' devices together; None if unknown, and then rows have no `mfu`.
        device: the device whose peak memory a row reports.
        rows: rows so far, oldest first.
        window: sums over the steps since the last row.
        pending: figures of other callbacks that wait for the next row.
    """

    name = "metric_rows"

    every: int
    evaluate_every: int | None = None
    steps: int
    peak_flops: float | None
    device: torch.device
    rows: list[Row] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)
    pending: dict[str, float] = field(default_factory=dict)

    def add(self, step: int, figures: StepFigures) -> Row | None:
        """Count step `step` (from 1); returns the row when one is due: the first, every `every`-th, and the last.

        A step that is evaluated has a row, too.
        """
        sums = {"steps": 1.0, "taken": float(figures.taken)}
        sums |= {name: float(getattr(figures, name)) for name in SUMMED}
        sums["loss"] = figures.loss if figures.taken else 0.0  # it may not be finite
        self.window = {name: self.window.get(name, 0.0) + value for name, value in sums.items()}
        evaluated = self.evaluate_every is not None and step % self.evaluate_every == 0
        due = evaluated or step == 1 or step % self.every == 0 or step == self.steps
        if not due or not self.window["taken"]:
            return None
        row = self._row(step, figures) | self.pending
        self.rows.append(row)
        self.window, self.pending = {}, {}
        return row

    def include(self, figures: Mapping[str, float], row: Row | None) -> None:
        """Add another callback's figures to `row`, or to the next row if this step has none."""
        (self.pending if row is None else row).update(figures)

    def state_dict(self) -> CallbackState:
        """The rows and the open sums."""
        return {"rows": self.rows, "window": self.window, "pending": self.pending}

    def load_state_dict(self, state: CallbackState) -> None:
        """Continue after the rows of a checkpoint."""
        self.rows = [dict(row) for row in state["rows"]]
        self.window, self.pending = dict(state["window"]), dict(state["pending"])

    def _row(self, step: int, figures: StepFigures) -> Row:
        window, count = self.window, self.window["steps"]
        seconds = max(window["seconds"], 1e-9)
        row = {
            "step": step,
            "time": time.time(),
            "loss": window["loss"] / window["taken"],
            "learning_rate": figures.learning_rate,
            **{f"learning_rate_{part}": rate for part, rate in figures.part_rates.items()},
            "gradient_norm": figures.gradient_norm,
            "samples": window["samples"],
            "tokens": window["tokens"],
            "micro_steps": window["micro_steps"] / count,
            "idle": window["idle"] / count,
            "seconds": window["seconds"],
            "data_seconds": window["data_seconds"],
            "data_share": window["data_seconds"] / seconds,
            "samples_per_second": window["samples"] / seconds,
            "tokens_per_second": window["tokens"] / seconds,
            "token_waste": 1 - window["tokens"] / max(window["tokens_computed"], 1.0),
            "patch_waste": 1 - window["patches"] / window["patches_computed"] if window["patches_computed"] else 0.0,
            "memory_gb": peak_memory(self.device) / 1e9,
        }
        if self.peak_flops is not None:
            row["mfu"] = window["flops"] / seconds / self.peak_flops
        return row
