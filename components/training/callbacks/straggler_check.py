"""Compares the ranks with every metrics row."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, FinishedStep
from components.training.monitoring.stragglers import Stragglers


class StragglerCheck(Callback):
    """Adds the slowest rank, and the rank that waits longest for data, to every metrics row; collective."""

    name = "stragglers"

    def __init__(self, stragglers: Stragglers) -> None:
        self._stragglers = stragglers

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """The comparison, if a row is due."""
        return {} if finished.row is None else self._stragglers.look(finished.row)
