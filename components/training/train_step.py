"""One optimizer step: forward, backward, the judgement of its loss, and the update."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.training.batching.collate import to_device
from components.training.batching.data_loader import StepBatch
from components.training.callbacks.loss_spikes import LossSpikeGuard
from components.training.engine.deepspeed_engine import DistributedContext, Engine
from components.training.loss import share_of_step
from components.training.monitoring.goodput import Cause
from components.training.monitoring.signals import StopRequest
from components.training.monitoring.step_metrics import StepFigures
from mantis.errors import TrainingError
from mantis.models.family import Family

Announce = Callable[[Cause, int, str], None]  # phase, step (from 1), part of the step


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """What the mixture's index says of each of its N samples.

    Args:
        ids: N sample ids.
        tokens: tokens with expanded images, [N].
        patches: image patches that the vision tower computes, [N].
        flops: FLOP that a training step needs for each sample, [N] float64.
        dummy_tokens: tokens of the dummy image that runs in a micro-step without images.
        dummy_patches: patches of the dummy image.
    """

    ids: Sequence[str]
    tokens: NDArray[np.integer]
    patches: NDArray[np.integer]
    flops: NDArray[np.float64]
    dummy_tokens: int
    dummy_patches: int


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """Takes optimizer steps; every rank calls it with its own micro-steps.

    Args:
        engine: the model in training.
        family: the model family, which knows the forward pass.
        ranks: this rank among all.
        table: sizes and ids of the samples.
        guard: judges losses; decides which steps are skipped.
        stop: remembers whether a signal asked this rank to stop.
        learning_rate: the rate of a step, counted from 0.
        seed: seed of dropout and other randomness inside the model.
        announce: called before each part of a step in which this rank may wait for others.
        before_update: called before the optimizer changes its state.
        rates_by_part: whether the figures hold the learning rate of each part.
    """

    engine: Engine
    family: Family
    ranks: DistributedContext
    table: SampleTable
    guard: LossSpikeGuard
    stop: StopRequest
    learning_rate: Callable[[int], float]
    seed: int
    announce: Announce
    before_update: Callable[[], None]
    rates_by_part: bool

    def take(self, work: StepBatch, *, waited: float) -> tuple[StepFigures, bool]:
        """Train one optimizer step whose data this rank waited `waited` seconds for; collective.

        Returns:
            The figures of the step, and whether a signal asked any rank to stop.

        Raises:
            TrainingError: the loss or the gradient is bad and no more steps may be skipped; names the samples.
        """
        began = time.monotonic()
        # Randomness inside the model depends on the step alone, so a resumed run draws the same numbers.
        torch.manual_seed(((self.seed << 40) + (work.step << 12) + self.ranks.rank) % 2**63)
        loss, stopping, problem = self._run_micro_steps(work)
        rate = self.learning_rate(work.step)
        self.announce(Cause.STEP, work.step + 1, "update")
        self.before_update()
        norm = self._update(rate, problem, work)
        seconds = time.monotonic() - began + waited
        return self._figures(work, loss=loss, rate=rate, norm=norm, seconds=seconds, waited=waited), stopping

    def _run_micro_steps(self, work: StepBatch) -> tuple[float, bool, str]:
        """Forward and backward of all micro-steps.

        Returns:
            The step's loss over all ranks, whether to stop, and why the step must be skipped (empty for a good step).
        """
        samples, last = len(work.samples), len(work.batches) - 1
        local = torch.zeros((), device=self.ranks.device)
        total, stops, problem = 0.0, 0.0, ""
        for index, packed in enumerate(work.batches):
            self.announce(Cause.STEP, work.step + 1, f"micro-step {index + 1} of {last + 1}")
            batch = to_device(packed, self.ranks.device, self.engine.dtype)
            losses = self.engine.head.sample_losses(self.family, self.engine.deepspeed, batch)
            share = share_of_step(losses, samples_of_step=samples, world_size=self.ranks.world_size)
            local += losses.detach().sum()
            if index == last:
                total, stops = self.ranks.all_reduce_sum(local.item() / samples, float(self.stop.signal is not None))
                problem = self._judge(total, work)
            # DeepSpeed discards a step whose gradients are not finite, and cleans up after it: make them so.
            self.engine.backward(share * math.nan if problem else share, last=index == last)
        return total, stops > 0, problem

    def _judge(self, loss: float, work: StepBatch) -> str:
        """Why the step must be skipped for its loss; empty for a good step."""
        problem = self.guard.problem(loss)
        if not problem:
            self.guard.accept(loss)
            return ""
        problem = f"the loss {problem}"
        self._skip(problem, loss, work)
        return problem

    def _update(self, rate: float, problem: str, work: StepBatch) -> float:
        """Take the step, or let DeepSpeed discard it; returns the gradient's norm, 0 for a discarded step."""
        norm = self.engine.step(rate)
        # ZeRO-3 keeps the norm of the step before when it discards one: only its own flag is reliable.
        discarded = bool(self.engine.deepspeed.optimizer.overflow) or not math.isfinite(norm)
        if discarded and not problem:
            self._skip("the gradient is not finite", math.nan, work)
        elif problem and not discarded:
            raise TrainingError(
                f"DeepSpeed took step {work.step + 1}, which was to be skipped: {problem}.",
                remedy="This is a bug of this program: report the version of DeepSpeed.",
            )
        return 0.0 if discarded else norm

    def _skip(self, problem: str, loss: float, work: StepBatch) -> None:
        self.guard.skip(work.step + 1, problem, [self.table.ids[position] for position in work.samples], loss=loss)

    def _figures(
        self, work: StepBatch, *, loss: float, rate: float, norm: float, seconds: float, waited: float
    ) -> StepFigures:
        table, dummies = self.table, work.plan.imageless
        tokens, patches = (int(column[work.samples].sum()) for column in (table.tokens, table.patches))
        return StepFigures(
            loss=loss,
            learning_rate=rate,
            part_rates=self.engine.part_rates(rate) if self.rates_by_part else {},
            gradient_norm=norm,
            samples=len(work.samples),
            tokens=tokens,
            micro_steps=len(work.batches),
            idle=work.plan.idle,
            seconds=seconds,
            data_seconds=waited,
            flops=float(table.flops[work.samples].sum()),
            tokens_computed=tokens + dummies * table.dummy_tokens,
            patches=patches,
            patches_computed=patches + dummies * table.dummy_patches,
            taken=work.step + 1 not in self.guard.skipped,
        )
