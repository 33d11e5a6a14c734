"""Rows of metrics.jsonl: one per logged step, over the steps since the row before it."""

from dataclasses import dataclass, field

Row = dict[str, float]


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
    taken: bool = True  # False: the step was bad and left out


@dataclass(kw_only=True)
class Recorder:
    """Collects steps into rows; a checkpoint keeps `window`, so that a resumed run writes the same rows."""

    every: int
    steps: int
    rows: list[Row] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)

    def add(self, step: int, figures: StepFigures) -> Row | None:
        """Count step `step` (from 1); returns the row when one is due: the first, every `every`-th, and the last."""
        sums = {
            "steps": 1.0,
            "taken": float(figures.taken),
            "loss": figures.loss if figures.taken else 0.0,
            "samples": figures.samples,
            "tokens": figures.tokens,
            "micro_steps": figures.micro_steps,
            "idle": figures.idle,
            "seconds": figures.seconds,
            "data_seconds": figures.data_seconds,
        }
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
        return {
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
            "samples_per_second": window["samples"] / seconds,
            "tokens_per_second": window["tokens"] / seconds,
        }
