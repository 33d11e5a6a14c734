"""Run one rank of `training.evaluate`: `torchrun -m benchmarks.training_evaluate_ranks FILE FULL`."""

import json
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training_lengths import CLIP, IDEFICS2, Style
from benchmarks.training_step_ranks import (
    BATCH,
    KIND,
    REPEATS,
    SETUPS,
    TRAINING,
    Case,
    Setup,
    make_case,
    plan_of,
    ratio_of_neighbours,
    timed,
)
from components.training.batching.collate import Prepared, collate, to_device
from components.training.engine.deepspeed_engine import (
    DistributedContext,
    Engine,
    build_engine,
    join_ranks,
    leave_ranks,
)
from components.training.held_out_evaluator import HeldOutEvaluator
from components.training.loss import share_of_step
from mantis.logging import configure
from mantis.models.packed_batch import PackedBatch, Pixels

logger = logging.getLogger(__name__)


def main(out: str, full: str) -> None:
    """Measure every style, and write the figures."""
    configure()
    ranks = join_ranks()
    figures = {style.name: measure(style, ranks, REPEATS[bool(int(full))]) for style in (IDEFICS2, CLIP)}
    if ranks.is_main:
        Path(out).write_text(json.dumps(figures))
    leave_ranks()


@dataclass(frozen=True, kw_only=True)
class ReadySamples:
    """Stands for a reader of held-out samples: they are encoded and decoded already, and only packed."""

    samples: Sequence[Prepared]
    no_pixels: Pixels

    def read(self, positions: Sequence[int]) -> list[Prepared]:
        """The samples at `positions`."""
        return [self.samples[at] for at in positions]

    def prepare_one(self, position: int, sample: Prepared) -> Prepared:
        """The sample itself."""
        return sample

    def pack(self, samples: Sequence[Prepared]) -> PackedBatch:
        """Pack the samples into one row."""
        return collate(samples, no_pixels=self.no_pixels)


def measure(style: Style, ranks: DistributedContext, repeats: int) -> dict[str, Any]:
    """Measure the forward passes of a training step and an evaluation in turn, on the same micro-steps."""
    setup = SETUPS[style]
    case = make_case(style, setup, ranks)
    engine = build_engine(case.model, KIND, TRAINING)
    evaluator = evaluator_of(case, engine, ranks, setup)
    first = timed(lambda: evaluator.loss(lambda part: None))
    seconds: dict[str, list[float]] = {"peer": [], "ours": []}
    for repeat in range(repeats + 1):
        if ranks.is_main:
            logger.info("%s: %d of %d", style.name, repeat, repeats)
        found = {
            "peer": max(own for (own,) in ranks.gather(forward_seconds(engine, case.packed, ranks))),
            "ours": timed(lambda: evaluator.loss(lambda part: None)),
        }
        for name, value in found.items():
            if repeat:
                seconds[name].append(value)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "peer": BATCH / middle["peer"],
        "ours": BATCH / middle["ours"],
        "ratio": ratio_of_neighbours(seconds["peer"], seconds["ours"]),
        "first": BATCH / first,
        "micro_steps": len(case.packed),
        "decomposition": "ours: forward passes without a graph, one reduction, and the wait for the other rank. The "
        "first evaluation (`first`) also packs the samples",
    }


def evaluator_of(case: Case, engine: Engine, ranks: DistributedContext, setup: Setup) -> HeldOutEvaluator:
    """The evaluator of the step's samples, which has the micro-steps of the step."""
    plan = plan_of(case.epoch, setup, case.flops)
    no_pixels = KIND.processor(case.tokenizer, setup.model).preprocess([])
    ready: Any = ReadySamples(samples=case.samples, no_pixels=no_pixels)
    return HeldOutEvaluator(engine=engine, family=KIND, ranks=ranks, preparer=ready, plan=plan, threads=1)


def forward_seconds(engine: Engine, batches: Sequence[PackedBatch], ranks: DistributedContext) -> float:
    """Seconds of this rank's forward passes within a whole optimizer step at learning rate zero."""
    spent = 0.0
    for index, packed in enumerate(batches):
        start = time.perf_counter()
        batch = to_device(packed, ranks.device, engine.dtype)
        losses = engine.head.sample_losses(KIND, engine.deepspeed, batch)
        spent += time.perf_counter() - start
        share = share_of_step(losses, samples_of_step=BATCH, world_size=ranks.world_size)
        engine.backward(share, last=index == len(batches) - 1)
    engine.step(0.0)
    return spent


if __name__ == "__main__":
    main(*sys.argv[1:])
