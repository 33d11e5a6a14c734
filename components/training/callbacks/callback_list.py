"""All callbacks of a trainer: calls them in order, merges their figures, collects their states."""

from collections.abc import Mapping, Sequence

from components.training.callbacks.callback import Callback, CallbackState, FinishedStep, TrainerView
from components.training.callbacks.metric_rows import MetricRows
from components.training.monitoring.goodput import Cause
from components.training.monitoring.step_metrics import StepFigures


class CallbackList:
    """Passes every event of training to `rows` and then to the other callbacks, in the order given."""

    def __init__(self, rows: MetricRows, others: Sequence[Callback]) -> None:
        self._rows = rows
        self._all: list[Callback] = []
        for callback in (rows, *others):
            self.add(callback)

    def add(self, callback: Callback) -> None:
        """Append `callback`.

        Raises:
            ValueError: another callback has the same name, so one state would replace the other.
        """
        if any(known.name == callback.name for known in self._all):
            raise ValueError(f"two callbacks are named {callback.name!r}")
        self._all.append(callback)

    def on_start(self, trainer: TrainerView) -> None:
        """Training begins or resumes."""
        for callback in self._all:
            callback.on_start(trainer)

    def on_phase(self, phase: Cause, step: int, detail: str = "") -> None:
        """The trainer enters `phase` in step `step` (from 1)."""
        for callback in self._all:
            callback.on_phase(phase, step, detail)

    def after_step(self, step: int, figures: StepFigures) -> None:
        """Count step `step` (from 1), and hand out its metrics row if one is due."""
        row = self._rows.add(step, figures)
        finished = FinishedStep(step=step, figures=figures, row=row)
        for callback in self._all:
            self._rows.include(callback.after_step(finished), row)
        if row is not None:
            for callback in self._all:
                callback.on_row(row)

    def on_save(self, step: int) -> None:
        """The state after step `step` (from 1) is copied."""
        for callback in self._all:
            callback.on_save(step)

    def on_commit(self, step: int) -> None:
        """The checkpoint of step `step` is committed."""
        for callback in self._all:
            callback.on_commit(step)

    def on_stop(self, step: int) -> None:
        """A signal ends the training; the checkpoint of step `step` is committed."""
        for callback in self._all:
            callback.on_stop(step)

    def on_end(self, trainer: TrainerView) -> None:
        """All steps are done and saved."""
        for callback in self._all:
            callback.on_end(trainer)

    def state_dict(self) -> dict[str, CallbackState]:
        """The states by callback name; callbacks without memory are left out."""
        states = {callback.name: callback.state_dict() for callback in self._all}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: Mapping[str, CallbackState]) -> None:
        """Load each callback's state.

        A callback that the checkpoint does not know starts fresh. A state whose callback this rank lacks is ignored.
        """
        for callback in self._all:
            if callback.name in states:
                callback.load_state_dict(states[callback.name])
