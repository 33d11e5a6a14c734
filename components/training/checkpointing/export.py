"""The result of a finished training beside its checkpoints: probe, model folder, metrics."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.training.batching.collate import to_device
from components.training.batching.data_loader import SampleProcessor
from components.training.engine.adapter_training import leave_base, save_config
from components.training.engine.deepspeed_engine import Engine
from components.training.monitoring.step_metrics import Row
from mantis.artifacts.checkpoint import METRICS, PROBE
from mantis.config.recipe import Recipe
from mantis.models.family import Family, Processor
from mantis.models.packed_batch import PackedBatch
from mantis.store.base import ObjectStore, upload_tree

PROBE_SAMPLES = 4


def compute_probe(
    engine: Engine, family: Family, preparer: SampleProcessor, device: torch.device, *, samples: int
) -> dict[str, Tensor]:
    """`probe_tensors` of the first few of a mixture's `samples` samples. Collective."""
    packed = preparer.pack(preparer.prepare(range(min(PROBE_SAMPLES, samples))))
    return probe_tensors(engine, family, packed, device)


def probe_tensors(engine: Engine, family: Family, packed: PackedBatch, device: torch.device) -> dict[str, Tensor]:
    """The tensors of a packed batch by name, and the trained model's `logits` [K, vocabulary] (fp32) at its K targets.

    Conversion compares the converted model with them. Collective.
    """
    engine.deepspeed.eval()
    with torch.no_grad():
        logits = family.forward(engine.deepspeed, to_device(packed, device, engine.dtype))
    engine.deepspeed.train()
    tensors = {field.name: getattr(packed, field.name).contiguous() for field in fields(PackedBatch)}
    return tensors | {"logits": logits.float().cpu().contiguous()}


def leave_files(
    store: ObjectStore,
    prefix: str,
    *,
    recipe: Recipe,
    engine: Engine,
    family: Family,
    processor: Processor,
    probe: dict[str, Tensor],
    rows: Sequence[Row],
) -> None:
    """Store probe.safetensors, metrics.jsonl and `model/`: a model folder without the trained weights.

    With adapters, `model/` holds their configuration and the weights that they will be merged into.
    """
    with tempfile.TemporaryDirectory(prefix="mantis-model-") as scratch:
        folder = Path(scratch)
        save_file(probe, folder / PROBE)
        (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        model = engine.deepspeed.module
        if recipe.training.adapter:
            save_config(model, recipe.training, folder / "model")
            build = partial(family.build, processor, seed=recipe.seed)
            leave_base(store, recipe, build, folder / "model")
        model.config.save_pretrained(folder / "model")
        model.generation_config.save_pretrained(folder / "model")
        processor.save(folder / "model")
        upload_tree(store, prefix, folder)
