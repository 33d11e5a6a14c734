"""Computes the loss of held-out samples over all ranks, packed as training packs them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from components.training.batching.collate import to_device
from components.training.batching.data_loader import DataLoader, SampleProcessor, StepBatch, size_of
from components.training.batching.sample_plan import SamplePlan
from components.training.engine.deepspeed_engine import DistributedContext, Engine
from mantis.models.family import Family

KEPT_BYTES = 2**30  # packed samples of one rank that stay in memory until the next evaluation


@dataclass(kw_only=True)
class HeldOutEvaluator:
    """Runs the model forward on all held-out samples; every rank calls it at the same step.

    The training is not touched: no gradient, no random number, and the engine is in training mode again afterwards.
    Each rank keeps its packed samples in memory, up to 1 GB, because every evaluation needs the same ones.

    Args:
        engine: the model in training.
        family: the model family, which knows the forward pass.
        ranks: this rank among all.
        preparer: encodes and packs the held-out samples.
        plan: one epoch of them, cut into groups and micro-steps.
        threads: threads that prepare samples.
    """

    engine: Engine
    family: Family
    ranks: DistributedContext
    preparer: SampleProcessor
    plan: SamplePlan
    threads: int
    kept: list[StepBatch] | None = field(default=None, init=False)

    @property
    def samples(self) -> int:
        """Number of held-out samples."""
        return self.plan.per_epoch

    def loss(self, announce: Callable[[str], None]) -> float:
        """The mean over the samples of the loss that training would have for each of them; collective.

        `announce` is called with a few words before each micro-step, in which this rank may wait for others.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        self.engine.deepspeed.eval()
        try:
            with torch.no_grad():
                for work in self._works():
                    for index, packed in enumerate(work.batches, 1):
                        part = f"group {work.step + 1} of {self.plan.steps}, micro-step {index} of {len(work.batches)}"
                        announce(f"held-out {part}")
                        batch = to_device(packed, self.ranks.device, self.engine.dtype)
                        losses = self.engine.head.sample_losses(self.family, self.engine.deepspeed, batch)
                        total += losses.sum(dtype=torch.float64)
        finally:
            self.engine.deepspeed.train()
        return self.ranks.all_reduce_sum(total.item())[0] / self.samples

    def _works(self) -> Iterator[StepBatch]:
        """This rank's micro-steps of all samples: from memory, or prepared by threads."""
        if self.kept is not None:
            yield from self.kept
            return
        ranks, held, size = self.ranks, list[StepBatch](), 0
        with DataLoader(
            self.preparer, self.plan, start=0, rank=ranks.rank, world_size=ranks.world_size, threads=self.threads
        ) as feed:
            for work in feed:
                size += size_of(work)
                if size <= KEPT_BYTES:
                    held.append(work)
                else:
                    held.clear()
                yield work
        if size <= KEPT_BYTES:
            self.kept = held
