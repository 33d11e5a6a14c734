"""Rows of metrics.jsonl: one per logged step, over the steps since the row before it."""

import resource
from dataclasses import dataclass, field

import torch

Row = dict[str, float]

# Of StepFigures: what is added up over the steps of a row.
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


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """One optimizer step over all ranks; times in seconds, of the first rank."""

    loss: float
    learning_rate: float
    gradient_norm: float
    samples: int
    tokens: int
    micro_steps: int
    idle: float  # share of the ranks' time that the plan leaves unused
    seconds: float
    data_seconds: float
    flops: float  # what the samples need
    tokens_computed: int  # with those of dummy images
    patches: int
    patches_computed: int
    taken: bool = True  # False: the step was bad and left out


@dataclass(kw_only=True)
class Recorder:
    """Collects steps into rows; a checkpoint keeps `window`, so that a resumed run writes the same rows.

    `peak_flops` is what all ranks' devices could do per second; None: not known, and rows have no `mfu`.
    """

    every: int
    steps: int
    peak_flops: float | None
    device: torch.device
    rows: list[Row] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)

    def add(self, step: int, figures: StepFigures) -> Row | None:
        """Count step `step` (from 1); returns the row when one is due: the first, every `every`-th, and the last."""
        sums = {"steps": 1.0, "taken": float(figures.taken)}
        sums |= {name: float(getattr(figures, name)) for name in SUMMED}
        sums["loss"] = figures.loss if figures.taken else 0.0  # it may not be finite
        self.window = {name: self.window.get(name, 0.0) + value for name, value in sums.items()}
        due = step == 1 or step % self.every == 0 or step == self.steps
        if not due or not self.window["taken"]:
            return None
        row = self._row(step, figures)
        self.rows.append(row)
        self.window = {}
        return row

    def _row(self, step: int, figures: StepFigures) -> Row:
        window, count = self.window, self.window["steps"]
        seconds = max(window["seconds"], 1e-9)
        row = {
            "step": step,
            "loss": window["loss"] / window["taken"],
            "learning_rate": figures.learning_rate,
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


def peak_memory(device: torch.device) -> int:
    """The most bytes this rank has held so far: of CUDA where it trains there, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
