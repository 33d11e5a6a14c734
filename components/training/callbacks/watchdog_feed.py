"""Reports the position of this rank to the watchdog."""

from components.training.callbacks.callback import Callback, TrainerView
from components.training.monitoring.goodput import Cause
from components.training.monitoring.watchdog import Watchdog


class WatchdogFeed(Callback):
    """Marks every place where a rank may wait for others; pauses the watchdog where a long wait is right."""

    name = "watchdog"

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Mark the wait for data and each part of a step; pause while checkpoints and the result are stored."""
        if phase is Cause.DATA:
            self._watchdog.mark(step, "data")
        elif phase is Cause.STEP and detail:
            self._watchdog.mark(step, detail)
        elif phase in (Cause.SAVE, Cause.FINISH):
            self._watchdog.pause()

    def on_end(self, trainer: TrainerView) -> None:
        """Stop watching."""
        self._watchdog.close()
