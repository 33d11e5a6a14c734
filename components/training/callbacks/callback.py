"""The interface of everything that observes a training step without deciding it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from components.training.checkpointing.saver import TrainingState
from components.training.monitoring.goodput import Cause
from components.training.monitoring.step_metrics import Row, StepFigures

CallbackState = dict[str, Any]  # JSON values only: the checkpoint stores it in state.json


class TrainerView(Protocol):
    """The part of the trainer that callbacks read."""

    @property
    def state(self) -> TrainingState:
        """Steps, samples and tokens done so far."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""

    def announce(self, phase: Cause, step: int, detail: str = "") -> None:
        """Call every callback's `on_phase`; a callback that waits for other ranks in a phase of its own does so."""


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """One optimizer step after its update.

    Args:
        step: number of the step, from 1.
        figures: figures of this step alone.
        row: the metrics row that is due at this step; None on the steps between two rows.
    """

    step: int
    figures: StepFigures
    row: Row | None


class Callback:
    """Observes training on one rank; a subclass overrides the hooks that it needs.

    The trainer calls the hooks on every rank in the order of its list. A hook that uses a collective needs its callback
    on every rank. The first rank's `state_dict` goes into the checkpoint, and every rank loads it.
    """

    name: ClassVar[str]  # key of the state in the checkpoint; unique within a trainer

    def on_start(self, trainer: TrainerView) -> None:
        """Training begins or resumes; `load_state_dict` came before, if a checkpoint holds a state."""

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """The trainer enters `phase` in step `step` (from 1); `detail` names the part of a step, or is empty."""

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Figures to add to the metrics row of this step, or to the next row if none is due."""
        return {}

    def on_row(self, row: Row) -> None:
        """A metrics row is complete: it holds the figures of all callbacks."""

    def on_save(self, step: int) -> None:
        """The state after step `step` (from 1) is copied; a thread stores and commits it later."""

    def on_commit(self, step: int) -> None:
        """The checkpoint of step `step` is committed; called on the first rank, from the thread that stored it."""

    def on_stop(self, step: int) -> None:
        """A signal ends the training here; the checkpoint of step `step` is committed."""

    def on_end(self, trainer: TrainerView) -> None:
        """All steps are done and the last checkpoint is committed."""

    def state_dict(self) -> CallbackState:
        """Memory that a resumed training needs; empty if there is none."""
        return {}

    def load_state_dict(self, state: CallbackState) -> None:
        """Take over what `state_dict` returned at the checkpoint."""
