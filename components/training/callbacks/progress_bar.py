"""The progress of training: its bar, and progress.json in the store for `mantis status`."""

import logging
import math
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from components.training.callbacks.callback import Callback, FinishedStep, TrainerView
from components.training.callbacks.metric_rows import MetricRows
from components.training.monitoring.goodput import Cause
from mantis.artifacts.training_progress import TrainingProgress, delete_progress, put_progress
from mantis.errors import StoreError
from mantis.progress import Progress, three_digits
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

FILE_SECONDS = 5.0


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
            # The last line shows the final loss, so even a training of a moment logs it.
            self._progress = Progress(label="training", total=trainer.steps, unit="steps", done=done, last_after=0.0)

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Count the step."""
        if self._progress:
            self._progress.advance(note=self._note())
        return {}

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Show that the held-out loss is computed."""
        if self._progress and phase is Cause.EVALUATE:
            self._progress.advance(0, note=detail)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step; None if they are not known yet."""
        return self._progress.seconds_left if self._progress else None

    def _note(self) -> str:
        if not self._rows.rows:
            return ""
        row = self._rows.rows[-1]
        held_out = last_held_out(self._rows)
        rates = (f"{three_digits(row[f'{unit}_per_second'])} {unit}/s" for unit in ("samples", "tokens"))
        losses = [f"loss {row['loss']:.3f}", *([] if held_out is None else [f"held-out {held_out:.3f}"])]
        return "  ".join([*losses, *rates])


def last_held_out(rows: MetricRows) -> float | None:
    """The newest held-out loss; None before the first one."""
    return next((row["held_out_loss"] for row in reversed(rows.rows) if "held_out_loss" in row), None)


class ProgressFile(Callback):
    """Stores progress.json beside the checkpoints every five seconds, from a thread; on the first rank."""

    name = "progress_file"

    def __init__(self, store: ObjectStore, prefix: str, rows: MetricRows, bar: ProgressBar) -> None:
        self._store, self._prefix, self._rows, self._bar = store, prefix, rows, bar
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._sent: Future[None] | None = None
        self._next = 0.0
        self._steps = 0

    def on_start(self, trainer: TrainerView) -> None:
        """Learn the last step."""
        self._steps = trainer.steps

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Store the progress if it is time, and the store took the one before."""
        now = time.monotonic()
        if now >= self._next and (self._sent is None or self._sent.done()):
            self._next = now + FILE_SECONDS
            self._sent = self._pool.submit(self._put, self._progress(finished.step))
        return {}

    def on_end(self, trainer: TrainerView) -> None:
        """Delete the file: the checkpoint is complete."""
        self._pool.shutdown()
        delete_progress(self._store, self._prefix)

    def _progress(self, step: int) -> TrainingProgress:
        row = self._rows.rows[-1] if self._rows.rows else {}
        held_out = last_held_out(self._rows)
        return TrainingProgress(
            step=step,
            steps=self._steps,
            loss=row.get("loss"),
            held_out_loss=held_out if held_out is not None and math.isfinite(held_out) else None,
            samples_per_second=row.get("samples_per_second"),
            tokens_per_second=row.get("tokens_per_second"),
            seconds_left=self._bar.seconds_left,
        )

    def _put(self, progress: TrainingProgress) -> None:
        try:
            put_progress(self._store, self._prefix, progress)
        except StoreError as error:  # only `mantis status` misses it
            logger.warning("The store did not take the progress: %s", error)
