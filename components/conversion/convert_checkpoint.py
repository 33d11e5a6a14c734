"""Compute the step `convert`: index the checkpoint, write the model folder, prove it, store it."""

import json
import logging
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from components.conversion.merge.merge_plan import ADAPTER_CONFIG, BASE, peft_model, plan_merge
from components.conversion.model_card import model_card, notices
from components.conversion.proof import DTYPES, model_of_config, prove_logits, prove_tensors
from components.conversion.shard_writer import plan_shards, write_shards
from components.conversion.zero.checkpoint_reader import read_file, read_step, step_to_convert
from components.conversion.zero.read_ahead import reading_ahead
from components.conversion.zero.zero_checkpoint import Checkpoint, MasterTensor
from mantis.artifacts.checkpoint import PROBE
from mantis.artifacts.layout import step_folder
from mantis.artifacts.manifest import Manifest, Number
from mantis.errors import ConversionError
from mantis.runs.sole_maker import is_heartbeat
from mantis.runs.step_runner import Run
from mantis.store.base import concurrently, upload_tree

logger = logging.getLogger(__name__)

MODEL = "model/"
NOT_OF_THE_MODEL = (ADAPTER_CONFIG, BASE)  # with these files transformers would load the folder as an adapter


def convert_checkpoint(run: Run, checkpoint: Manifest, prefix: str) -> dict[str, Number]:
    """Write the model folder under `prefix` of the store, after the proof that it equals the checkpoint.

    Returns:
        The summary of the manifest: parameters, bytes, seconds, largest logit difference, step and precision.

    Raises:
        ConversionError: the checkpoint cannot be converted, or the model differs from it.
    """
    clock = time.monotonic()
    recipe = run.recipe
    stored = recipe.conversion.precision
    torch.set_num_threads(1)  # the shard writer has its own threads
    which = recipe.conversion.checkpoint
    step = step_to_convert(checkpoint, which)
    zero = read_step(run.store, checkpoint, step)
    size = f"{zero.parameters:,}"
    logger.info("Step %d, ZeRO-%d of %d ranks, %s parameters", zero.step, zero.stage, zero.world_size, size)
    with tempfile.TemporaryDirectory(prefix="mantis-convert-") as scratch:
        folder = Path(scratch)
        copy_model_files(run, checkpoint, folder, stored)
        merge = plan_merge(run, checkpoint, zero, folder)
        with reading_ahead(tensors_to_write(merge.merged if merge else zero, folder)) as tensors:
            shards = plan_shards(tensors, DTYPES[stored])
            prove_tensors(shards, folder, write_shards(shards, folder))
        difference = prove_logits(
            folder,
            read_file(run.store, checkpoint, f"{step_folder(step)}/{PROBE}" if which == "best" else PROBE),
            family_name=recipe.model.family,
            trained=recipe.training.precision,
            stored=stored,
            reference=partial(peft_model, merge, DTYPES[recipe.training.precision], recipe.model.family)
            if merge
            else None,
        )
        count = sum(len(shard.places) for shard in shards)
        logger.info("Proved equal: %d tensors, logits within %.3g", count, difference)
        parameters = (merge.merged if merge else zero).parameters
        card = model_card(run, checkpoint, parameters=parameters, difference=difference, merged=merge is not None)
        (folder / "README.md").write_text(card)
        if notice := notices(recipe.model):
            (folder / "Notice").write_text(notice + "\n")
        left = [entry.key for entry in run.store.list(prefix) if not is_heartbeat(prefix, entry.key)]
        concurrently(run.store.delete, left)  # a killed attempt may have left files
        upload_tree(run.store, prefix, folder)
    return {
        "parameters": parameters,
        "bytes": sum(shard.size for shard in shards),
        "seconds": round(time.monotonic() - clock, 3),
        "largest_logit_difference": difference,
        "step": zero.step,
        "precision": stored,
    }


def tensors_to_write(zero: Checkpoint, folder: Path) -> list[MasterTensor]:
    """List every tensor that the model files must hold: all of the configuration in `folder`, except tied copies.

    Raises:
        ConversionError: the configuration ties two tensors whose trained weights differ.
    """
    full = dict(zero.tensors)
    full |= {alias: replace(full[name], name=alias) for alias, name in zero.aliases.items()}
    with torch.device("meta"):
        tied = model_of_config(folder).all_tied_weights_keys
    for target, source in tied.items():
        if target in full and source in full:
            if full[target].pieces != full[source].pieces:
                raise ConversionError(
                    f"{target} and {source} were trained apart, but model/config.json ties them.",
                    remedy="Set tie_word_embeddings to false in the model's configuration and train again.",
                )
            del full[target]
    return list(full.values())


def copy_model_files(run: Run, checkpoint: Manifest, folder: Path, precision: str) -> None:
    """Copy configuration, tokenizer and processor from the checkpoint, and set `dtype` to the stored precision."""
    for file in checkpoint.files:
        name = file.name.removeprefix(MODEL)
        if file.name != name and not name.endswith(".safetensors") and name not in NOT_OF_THE_MODEL:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_file(run.store, checkpoint, file.name))
    path = folder / "config.json"
    if not path.exists():
        raise ConversionError(f"{checkpoint.key} holds no model/config.json.", remedy="Run the step `train` again.")
    name = str(DTYPES[precision]).removeprefix("torch.")
    config = {"dtype": name, **_with_dtype(json.loads(path.read_text()), name)}  # the default of from_pretrained
    path.write_text(json.dumps(config, indent=2) + "\n")
    if not (folder / "generation_config.json").exists():
        of_model = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        GenerationConfig.from_model_config(of_model).save_pretrained(folder)


def _with_dtype(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return `config` with every `dtype` replaced by `name`, sub-configurations included."""
    return {
        key: _with_dtype(value, name) if isinstance(value, dict) else name if key == "dtype" else value
        for key, value in config.items()
    }
