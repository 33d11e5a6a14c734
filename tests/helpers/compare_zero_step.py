"""On every rank: optimizer steps through the engine, beside the official way (batch 1, accumulated) in plain torch.

Arguments: store URL, file for the figures, ids of runs.
"""

import copy
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

from components.training.batching.data_loader import DataLoader, SampleProcessor, StepBatch
from components.training.batching.sample_plan import Budgets, Lengths, Positions, SamplePlan
from components.training.engine.deepspeed_engine import (
    DistributedContext,
    Engine,
    build_engine,
    join_ranks,
    leave_ranks,
)
from components.training.engine.parameter_groups import freeze
from components.training.logit_chunk import CHUNK_LOGITS
from components.training.loss import LossHead, share_of_step
from components.training.sizing.flops import flops_of
from mantis.artifacts.manifest import read_manifest
from mantis.config.model_settings import ModelSettings
from mantis.config.training_settings import TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models.family import Family
from mantis.models.registry import family
from mantis.runs.records import read_record
from mantis.runs.step_runner import open_run

BATCH, RATE = 7, 1e-3
STEP_SAMPLES = 21
CHUNK = 1000  # logits: a few targets
VARIANTS: list[dict[str, Any]] = [
    {"zero_stage": 3, "weight_decay": 0.01, "token_budget": 8, "chunk_logits": CHUNK},
    {"zero_stage": 2, "weight_decay": 0.01, "token_budget": 120, "chunk_logits": CHUNK},
    {"zero_stage": 3, "train": ("projector", "text"), "gradient_checkpointing": True, "token_budget": 30},
    {"zero_stage": 3, "train": ("projector",), "global_batch_size": 48},
    {"zero_stage": 3, "train": ("projector", "text", "cross_attention", "embeddings"), "global_batch_size": 48},
]

Figures = dict[str, Any]  # of one step


def main(work: Callable[..., object], store_url: str, out: str, *run_ids: str) -> None:
    ranks = join_ranks()
    figures = {}
    for run_id in run_ids:
        run = open_run(run_id, store_url)
        record = read_record(run.store, run.id, "assemble")
        assert record is not None
        mixture = read_manifest(run.store, record.key)
        assert mixture is not None
        reader = MixtureReader(run.store, mixture)
        figures[run_id] = work(run.recipe.model, run.recipe.training, reader, ranks)
    Path(f"{out}.{ranks.rank}").write_text(json.dumps(figures))
    leave_ranks()


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
        changes: dict[str, Any] = {"max_grad_norm": 0.5, "global_batch_size": BATCH, **variant}
        chunk = changes.pop("chunk_logits", CHUNK_LOGITS)
        settings = training.model_copy(update=changes)
        figures.append(train(model_settings, settings, reader, ranks, chunk_logits=chunk))
    return figures


def train(
    model_settings: ModelSettings,
    settings: TrainingSettings,
    reader: MixtureReader,
    ranks: DistributedContext,
    *,
    chunk_logits: int,
) -> list[Figures]:
    kind = family(model_settings.family)
    processor = kind.processor(reader.tokenizer(), model_settings)
    model = kind.build(processor, seed=3)
    reference = copy.deepcopy(model)
    freeze(reference, kind, settings)
    engine = build_engine(model, kind, settings)
    head = LossHead(model, chunk_logits=chunk_logits)
    return steps_of(engine, reference, head, kind, processor, settings, reader, ranks)


def steps_of(
    engine: Engine,
    reference: torch.nn.Module,
    head: LossHead,
    kind: Family,
    processor: Any,
    settings: TrainingSettings,
    reader: MixtureReader,
    ranks: DistributedContext,
    *,
    adam: torch.optim.Optimizer | None = None,
    start: int = 0,
    steps: int | None = None,
) -> list[Figures]:
    adam = adam or plain_adamw(reference, kind, settings)
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=1,
        batch_size=settings.global_batch_size,
        epochs=1,
        max_steps=steps or max(1, STEP_SAMPLES // settings.global_batch_size),
        budgets=Budgets(tokens=settings.token_budget, patches=1000),
        cost=flops_of(reference, kind, settings).cost_model(),
    )
    preparer = SampleProcessor(reader, processor)
    with DataLoader(preparer, plan, start=start, rank=ranks.rank, world_size=ranks.world_size) as feed:
        return [
            step(work, engine, reference, adam, settings, head=head, kind=kind, preparer=preparer, ranks=ranks)
            for work in feed
        ]


def plain_adamw(model: torch.nn.Module, kind: Family, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW with a group for each parameter, by the recipe's words."""
    groups = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = settings.parts.get(kind.parameter_group(name))
            rate = own.learning_rate if own and own.learning_rate else settings.learning_rate
            decay = settings.weight_decay if own is None or own.weight_decay is None else own.weight_decay
            decay = decay if parameter.ndim > 1 else 0.0
            peak = rate / settings.learning_rate
            groups.append({"params": [parameter], "lr": rate, "weight_decay": decay, "of_rate": peak})
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)


def step(
    work: StepBatch,
    engine: Engine,
    reference: torch.nn.Module,
    adam: torch.optim.Optimizer,
    settings: TrainingSettings,
    *,
    head: LossHead,
    kind: Family,
    preparer: SampleProcessor,
    ranks: DistributedContext,
) -> Figures:
    expected = one_by_one(reference, kind, preparer, work.samples)
    loss = torch.zeros(())
    for index, batch in enumerate(work.batches):
        losses = head.sample_losses(kind, engine.deepspeed, batch)
        share = share_of_step(losses, samples_of_step=len(work.samples), world_size=ranks.world_size)
        engine.backward(share, last=index == len(work.batches) - 1)
        loss += losses.detach().sum() / len(work.samples)
    torch.distributed.all_reduce(loss)
    error = gradient_error(engine.deepspeed.module, reference)
    before = {name: parameter.detach().clone() for name, parameter in reference.named_parameters()}
    figures = {
        "loss": loss.item(),
        "expected_loss": expected,
        "gradient_error": error,
        "norm": engine.step(RATE),
        "expected_norm": step_by_hand(reference, adam, settings.max_grad_norm),
        "micro_steps": len(work.batches),
        "empty": sum(batch.input_ids.numel() == 0 for batch in work.batches),
    }
    return figures | {"update_error": update_error(engine.deepspeed.module, reference, before, kind)}


def one_by_one(model: torch.nn.Module, kind: Family, preparer: SampleProcessor, positions: Positions) -> float:
    total = 0.0
    for position in positions:
        batch = preparer.pack(preparer.prepare([int(position)]))
        logits = kind.forward(model, batch)
        loss = torch.nn.functional.cross_entropy(logits, batch.targets) / len(positions)
        loss.backward()
        total += loss.item()
    return total


def gradient_error(module: torch.nn.Module, reference: torch.nn.Module) -> float:
    difference = size = 0.0
    named = dict(reference.named_parameters())
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found, expected = safe_get_full_grad(parameter), named[name].grad
            expected = torch.zeros_like(named[name]) if expected is None else expected
            difference += float((found - expected).square().sum())
            size += float(expected.square().sum())
    return math.sqrt(difference / size)


def update_error(
    module: torch.nn.Module, reference: torch.nn.Module, before: dict[str, torch.Tensor], kind: Family
) -> dict[str, float]:
    """Mean difference of the updates of each part, in units of their mean size."""
    named, sums = dict(reference.named_parameters()), dict[str, list[float]]()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found, expected = safe_get_full_fp32_param(parameter).view(named[name].shape), named[name].detach()
            entry = sums.setdefault(kind.parameter_group(name), [0.0, 0.0])
            entry[0] += float((found - expected).abs().sum())
            entry[1] += float((expected - before[name]).abs().sum())
    return {part: difference / size for part, (difference, size) in sums.items()}


def step_by_hand(model: torch.nn.Module, adam: torch.optim.Optimizer, clipping: float) -> float:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # In fp32, torch's own norm of a large gradient was seen to be 1e-5 off.
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in trained if p.grad is not None))
    torch.nn.utils.clip_grad_norm_(trained, clipping)
    for group in adam.param_groups:
        group["lr"] = RATE * group["of_rate"]
    adam.step()
    adam.zero_grad()
    return norm


if __name__ == "__main__":
    main(every_variant, *sys.argv[1:])
