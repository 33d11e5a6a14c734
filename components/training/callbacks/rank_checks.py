"""Finds ranks that are slow, and ranks that hang."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, FinishedStep, TrainerView
from components.training.monitoring.goodput import Cause
from components.training.monitoring.stragglers import Stragglers
from components.training.monitoring.watchdog import Watchdog


class StragglerCheck(Callback):
    """Adds the slowest rank, and the rank that waits longest for data, to every metrics row; collective."""

    name = "stragglers"

    def __init__(self, stragglers: Stragglers) -> None:
        self._stragglers = stragglers

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """The comparison, if a row is due."""
        return {} if finished.row is None else self._stragglers.look(finished.row)


class WatchdogFeed(Callback):
    """Marks every place where a rank may wait for others; pauses the watchdog where a long wait is right."""

    name = "watchdog"

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Mark the wait for data, each part of a step or evaluation; pause while checkpoints and result are stored."""
        if phase is Cause.DATA:
            self._watchdog.mark(step, "data")
        elif phase in (Cause.STEP, Cause.EVALUATE) and detail:
            self._watchdog.mark(step, detail)
        elif phase in (Cause.SAVE, Cause.FINISH):
            self._watchdog.pause()

    def on_end(self, trainer: TrainerView) -> None:
        """Stop watching."""
        self._watchdog.close()
