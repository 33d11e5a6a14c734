"""One optimizer step: forward, backward, the judgement of its loss, and the update."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.core.errors import TrainingError
from components.core.settings import ModelSettings, TrainingSettings
from components.core.store import ObjectStore
from components.models.conversation import Size
from components.models.family import Family
from components.models.mixture import MixtureReader
from components.training.collate import to_device
from components.training.engine import Engine, Ranks
from components.training.feed import Work
from components.training.guard import Guard, record_skipped
from components.training.loss import share_of_step
from components.training.metrics import StepFigures
from components.training.schedule import learning_rate
from components.training.signals import StopRequest
from components.training.watchdog import Watchdog

DUMMY = Size(width=1, height=1)  # the image that runs where a micro-step has none


@dataclass(kw_only=True)
class Stepper:
    """Takes steps; `flops` [samples] is what each sample of the index needs, `steps` how many the training has."""

    store: ObjectStore
    prefix: str
    ranks: Ranks
    settings: TrainingSettings
    model: ModelSettings
    family: Family
    reader: MixtureReader
    engine: Engine
    guard: Guard
    watchdog: Watchdog
    stop: StopRequest
    flops: NDArray[np.float64]
    steps: int

    def take(self, work: Work, *, waited: float) -> tuple[StepFigures, bool]:
        """Train one optimizer step, for which the data was `waited` seconds for; collective.

        Returns its figures and whether any rank was asked to stop.

        Raises:
            TrainingError: the loss or the gradient is bad and may not be left out; names the samples.
        """
        began = time.monotonic()
        # Whatever a model draws at random depends on the step alone, so a resumed run draws the same.
        torch.manual_seed(((self.settings.seed << 40) + (work.step << 12) + self.ranks.rank) % 2**63)
        samples = len(work.samples)
        local = torch.zeros((), device=self.ranks.device)
        total, stops, problem, last = 0.0, 0.0, "", len(work.batches) - 1
        for index, packed in enumerate(work.batches):
            self.watchdog.mark(work.step + 1, f"micro-step {index + 1} of {last + 1}")
            batch = to_device(packed, self.ranks.device, self.engine.dtype)
            losses = self.engine.head.sample_losses(self.family, self.engine.deepspeed, batch)
            share = share_of_step(losses, samples_of_step=samples, world_size=self.ranks.world_size)
            local += losses.detach().sum()
            if index == last:
                total, stops = self.ranks.add_up(local.item() / samples, float(self.stop.signal is not None))
                problem = self._judge(total, work)
            # DeepSpeed discards a step whose gradients are not finite, and clears up after it: make them so.
            self.engine.backward(share * math.nan if problem else share, last=index == last)
        rate = learning_rate(
            work.step, steps=self.steps, peak=self.settings.learning_rate, schedule=self.settings.schedule
        )
        self.watchdog.mark(work.step + 1, "update")
        norm = self._update(rate, problem, work)
        tokens, patches = (int(column[work.samples].sum()) for column in (self.reader.tokens, self.reader.patches))
        dummies, dummy = work.plan.imageless, (DUMMY, self.model)
        figures = StepFigures(
            loss=total,
            learning_rate=rate,
            gradient_norm=norm,
            samples=samples,
            tokens=tokens,
            micro_steps=len(work.batches),
            idle=work.plan.idle,
            seconds=time.monotonic() - began + waited,
            data_seconds=waited,
            flops=float(self.flops[work.samples].sum()),
            tokens_computed=tokens + dummies * self.family.image_tokens(*dummy),
            patches=patches,
            patches_computed=patches + dummies * self.family.image_patches(*dummy),
            taken=work.step + 1 not in self.guard.skipped,
        )
        return figures, stops > 0

    def _judge(self, loss: float, work: Work) -> str:
        """What is wrong with the step's loss, where it may be left out for that; empty for a good one."""
        problem = self.guard.problem(loss)
        if not problem:
            self.guard.accept(loss)
            return ""
        problem = f"the loss {problem}"
        self._leave_out(problem, loss, work)
        return problem

    def _update(self, rate: float, problem: str, work: Work) -> float:
        """Take the step, or have DeepSpeed discard it; returns the gradient's norm, 0 where it was left out."""
        norm = self.engine.step(rate)
        # ZeRO-3 keeps the norm of the step before where it discards one: its own flag tells.
        discarded = bool(self.engine.deepspeed.optimizer.overflow) or not math.isfinite(norm)
        if discarded and not problem:
            self._leave_out("the gradient is not finite", math.nan, work)
        elif problem and not discarded:
            raise TrainingError(
                f"DeepSpeed took step {work.step + 1}, which was to be left out: {problem}.",
                remedy="This is a bug of this program: report the version of DeepSpeed.",
            )
        return 0.0 if discarded else norm

    def _leave_out(self, problem: str, loss: float, work: Work) -> None:
        ids = [self.reader.ids[position] for position in work.samples]
        self.guard.skip(work.step + 1, problem, ids)
        if self.ranks.first:
            row = {"step": work.step + 1, "reason": problem, "loss": repr(loss), "samples": ids}
            record_skipped(self.store, self.prefix, row)
