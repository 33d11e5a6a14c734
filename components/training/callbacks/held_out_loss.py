"""The held-out loss during training: its curve, the best step, and the end of a training that gets no better."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from safetensors.torch import save
from torch import Tensor

from components.training.callbacks.callback import Callback, CallbackState, FinishedStep, TrainerView
from components.training.held_out_evaluator import HeldOutEvaluator
from components.training.monitoring.goodput import Cause
from components.training.monitoring.running_trial import RunningTrial
from mantis.artifacts.checkpoint import PROBE
from mantis.artifacts.manifest import Number

logger = logging.getLogger(__name__)


class HeldOutPoint(NamedTuple):
    """The held-out loss after step `step`, in nats: the mean over the samples."""

    step: int
    loss: float


@dataclass(kw_only=True)
class HeldOutLoss(Callback):
    """Evaluates every `every` steps and after the last one; collective.

    The trainer asks it for the step to keep, and whether to stop or to give up. The checkpoint holds all points, so a
    resumed training decides the same.

    Args:
        evaluator: computes the loss on all ranks.
        every: steps between two evaluations.
        keeps_best: whether the step with the lowest loss is saved and kept.
        patience: evaluations in a row without a lower loss after which training stops; None: it never does.
        probe: computes the probe of the present weights for conversion; collective.
        is_main: whether this is the first rank.
        trial: knows the other trials of a sweep; None: the run is none of a sweep that searches.
        points: the losses so far, in the order of steps.
        gives_up: whether the trial is pruned.
    """

    name = "held_out_loss"

    evaluator: HeldOutEvaluator
    every: int
    keeps_best: bool
    patience: int | None
    probe: Callable[[], dict[str, Tensor]]
    is_main: bool
    trial: RunningTrial | None = None
    points: list[HeldOutPoint] = field(default_factory=list)
    gives_up: bool = False
    trainer: TrainerView = field(init=False)

    def on_start(self, trainer: TrainerView) -> None:
        """Keep the trainer, which knows the last step and announces the evaluation to the other callbacks."""
        self.trainer = trainer

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Evaluate if it is time. The loss belongs to the metrics row of this very step, so it waits for no other."""
        step = finished.step
        if step % self.every and step != self.trainer.steps:
            return {}
        loss = self.evaluator.loss(lambda part: self.trainer.announce(Cause.EVALUATE, step, part))
        self.trainer.announce(Cause.OTHER, step)
        self.points.append(HeldOutPoint(step, loss))
        if self.is_main:
            best = "the lowest so far" if self.best == self.points[-1] else f"not below that of step {self._best_step}"
            logger.info("Step %d: held-out loss %.4f of %d samples, %s", step, loss, self.evaluator.samples, best)
        if self.trial is not None and step < self.trainer.steps:
            self.gives_up = self.trial.is_hopeless(self.points, steps=self.trainer.steps)
        return {} if finished.row is None else {"held_out_loss": loss}

    @property
    def best(self) -> HeldOutPoint | None:
        """The first point with the lowest finite loss."""
        finite = [point for point in self.points if math.isfinite(point.loss)]
        return min(finite, key=lambda point: point.loss, default=None)

    @property
    def best_to_keep(self) -> int | None:
        """The step whose checkpoint must be kept; None if the recipe keeps none."""
        return self._best_step if self.keeps_best else None

    @property
    def stops(self) -> bool:
        """Whether the last `patience` evaluations were no better than an earlier one."""
        if self.patience is None:
            return False
        since = sum(point.step > (self._best_step or 0) for point in self.points)
        return since >= self.patience

    def probe_files(self) -> dict[str, bytes]:
        """The probe of the present weights as a file of the best step's checkpoint; on the first rank. Collective."""
        probe = self.probe()
        return {PROBE: save(probe)} if self.is_main else {}

    def summary(self, last: int) -> dict[str, Number]:
        """The figures of the whole training, which ended after step `last`."""
        best = self.best
        found: dict[str, Number] = {
            "held_out_samples": self.evaluator.samples,
            "last_held_out_loss": self.points[-1].loss,
            "stopped_early": last < self.trainer.steps,
        }
        return found | ({"best_held_out_loss": best.loss, "best_step": best.step} if best else {})

    def state_dict(self) -> CallbackState:
        """All points."""
        return {"points": [list(point) for point in self.points]}

    def load_state_dict(self, state: CallbackState) -> None:
        """Continue after the points of a checkpoint."""
        self.points = [HeldOutPoint(int(step), float(loss)) for step, loss in state["points"]]

    @property
    def _best_step(self) -> int | None:
        return None if self.best is None else self.best.step
