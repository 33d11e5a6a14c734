"""On every rank: held-out losses between optimizer steps, beside those of the same model in plain torch, one by one.

Arguments: store URL, file for the figures, ids of runs.
"""

import copy
import sys
from collections.abc import Sequence
from typing import Any

import torch

from components.training.batching.data_loader import SampleProcessor
from components.training.batching.sample_plan import Budgets, Lengths, SamplePlan
from components.training.engine import deepspeed_config, deepspeed_engine
from components.training.engine.deepspeed_engine import DistributedContext, build_engine
from components.training.engine.parameter_groups import freeze
from components.training.held_out_evaluator import HeldOutEvaluator
from components.training.sizing.flops import flops_of
from mantis.artifacts.held_out import HELD_OUT_INDEX
from mantis.artifacts.manifest import read_manifest
from mantis.config.model_settings import ModelSettings
from mantis.config.training_settings import TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models.family import Family
from mantis.models.registry import family
from tests.helpers.compare_zero_step import Figures, main, plain_adamw, steps_of

BATCH, STEPS = 7, 2
TOGETHER = 6  # held-out samples that are planned together, so that there are several groups
VARIANTS: list[dict[str, Any]] = [
    {"zero_stage": 3, "token_budget": 40},
    {"zero_stage": 2, "token_budget": 120},
    {"zero_stage": 3, "token_budget": 40, "small": 0},  # module by module, as large models are gathered
]


def every_variant(
    model_settings: ModelSettings,
    training: TrainingSettings,
    reader: MixtureReader,
    ranks: DistributedContext,
    *,
    chosen: Sequence[int] = range(len(VARIANTS)),
) -> list[list[Figures]]:
    figures = []
    for variant in (VARIANTS[at] for at in chosen):
        changes: dict[str, Any] = {"global_batch_size": BATCH, **variant}
        vars(deepspeed_engine)["SMALL_PARAMETERS"] = changes.pop("small", deepspeed_config.SMALL_PARAMETERS)
        figures.append(train(model_settings, training.model_copy(update=changes), reader, ranks))
    return figures


def train(
    model_settings: ModelSettings, settings: TrainingSettings, reader: MixtureReader, ranks: DistributedContext
) -> list[Figures]:
    """Two optimizer steps with an evaluation behind each of them."""
    kind = family(model_settings.family)
    processor = kind.processor(reader.tokenizer(), model_settings)
    model = kind.build(processor, seed=3)
    reference = copy.deepcopy(model)
    freeze(reference, kind, settings)
    mixture = read_manifest(reader._store, reader._prefix)
    assert mixture is not None
    held_out = MixtureReader(reader._store, mixture, index_name=HELD_OUT_INDEX)
    preparer = SampleProcessor(held_out, processor)
    flops = flops_of(reference, kind, settings)
    engine = build_engine(model, kind, settings)
    plan = SamplePlan(
        Lengths(tokens=held_out.tokens.astype("int64"), patches=held_out.patches.astype("int64")),
        seed=0,
        batch_size=TOGETHER,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=settings.token_budget, patches=1000),
        cost=flops.cost_model(),
    )
    evaluator = HeldOutEvaluator(engine=engine, family=kind, ranks=ranks, preparer=preparer, plan=plan, threads=1)
    found = []
    adam = plain_adamw(reference, kind, settings)
    for number in range(STEPS):
        figures = steps_of(
            engine, reference, engine.head, kind, processor, settings, reader, ranks,
            adam=adam, start=number, steps=number + 1,
        )  # fmt: skip
        found += [row | compared(evaluator, reference, kind, preparer, len(held_out)) for row in figures]
    return found


def compared(
    evaluator: HeldOutEvaluator, reference: torch.nn.Module, kind: Family, preparer: SampleProcessor, samples: int
) -> Figures:
    random = torch.get_rng_state()
    parts: list[str] = []
    figures = {"held_out": evaluator.loss(parts.append), "expected": one_by_one(reference, kind, preparer, samples)}
    again = evaluator.loss(parts.append)
    return figures | {
        "again": again,
        "micro_steps": len(parts) // 2,
        "training": bool(evaluator.engine.deepspeed.module.training),
        "random_is_untouched": bool(torch.equal(random, torch.get_rng_state())),
    }


def one_by_one(model: torch.nn.Module, kind: Family, preparer: SampleProcessor, samples: int) -> float:
    model.eval()
    total = 0.0
    with torch.no_grad():
        for position in range(samples):
            batch = preparer.pack(preparer.prepare([position]))
            total += torch.nn.functional.cross_entropy(kind.forward(model, batch), batch.targets).item()
    model.train()
    return total / samples


if __name__ == "__main__":
    main(every_variant, *sys.argv[1:])
