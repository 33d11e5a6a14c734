"""Python's garbage collection, between steps only."""

import gc
from collections.abc import Mapping

from components.training.callbacks.callback import Callback, FinishedStep, TrainerView
from components.training.monitoring.goodput import Cause

GARBAGE_STEPS = 50


class ManualGarbageCollection(Callback):
    """Collects cycles every 50 steps: Python's own collections walk every module's objects in the middle of a step."""

    name = "garbage_collection"

    def on_start(self, trainer: TrainerView) -> None:
        """Collect once, exempt the remaining objects from later collections, and turn automatic collections off."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Collect after steps 1, 51, 101, ..."""
        if finished.step % GARBAGE_STEPS == 1:
            gc.collect()
        return {}

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Turn automatic collections on again when the steps are over."""
        if phase is Cause.FINISH:
            gc.enable()
            gc.unfreeze()
