"""A profiler trace of the steps that `--profile-steps` names."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, FinishedStep
from components.training.monitoring.goodput import Cause
from components.training.monitoring.profiling import StepProfiler


class StepTrace(Callback):
    """Starts `profiler` before its first step and stores the trace after its last one."""

    name = "step_trace"

    def __init__(self, profiler: StepProfiler) -> None:
        self._profiler = profiler

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Start tracing if step `step` (from 1) is the first of the span."""
        if phase is Cause.STEP:
            self._profiler.begin(step)

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Store the trace if this step is the last of the span."""
        self._profiler.end(finished.step)
        return {}
