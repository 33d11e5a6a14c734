"""The progress bar of training."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, FinishedStep, TrainerView
from components.training.callbacks.metric_rows import MetricRows
from mantis.progress import Progress


class ProgressBar(Callback):
    """Counts steps and shows loss and speed of the last metrics row; on the first rank."""

    name = "progress_bar"

    def __init__(self, rows: MetricRows) -> None:
        self._rows = rows
        self._progress: Progress | None = None

    def on_start(self, trainer: TrainerView) -> None:
        """Show the bar, unless all steps are done already."""
        done = trainer.state.step
        if done < trainer.steps:
            self._progress = Progress(label="training", total=trainer.steps, unit="steps", done=done)

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Count the step."""
        if self._progress:
            self._progress.advance(note=self._note())
        return {}

    def _note(self) -> str:
        if not self._rows.rows:
            return ""
        row = self._rows.rows[-1]
        return f"loss {row['loss']:.3f}  {row['samples_per_second']:,.0f} samples/s"
