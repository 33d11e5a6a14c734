"""Plan the merge of an adapter checkpoint into its unquantized base, and build the peft model for the proof."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ConfigDict, ValidationError
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from components.conversion.merge.adapter_merge import PREFIX, base_with_trained, merge_adapters, parse_adapter_config
from components.conversion.proof import load_model, model_of_config
from components.conversion.shard_writer import plan_shards, write_shards
from components.conversion.zero.byte_sources import ByteSource, store_sources
from components.conversion.zero.checkpoint_reader import read_file
from components.conversion.zero.safetensors_index import SUFFIX, read_safetensors
from components.conversion.zero.zero_checkpoint import Checkpoint, MasterTensor
from mantis import schema_versions
from mantis.artifacts.manifest import File, Manifest, former_key, hash_object
from mantis.errors import ConversionError
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form, Versioned
from mantis.store.base import ObjectStore, concurrently

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
BASE = "base.json"


class MergeBase(Versioned):
    """`model/base.json`: the key of a Hugging Face folder in the store, and the hashes of its files during training."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    form = Form.ADAPTER_BASE

    address: str
    files: tuple[File, ...]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """An adapter checkpoint: the merged model, and the parts that the peft model is built from.

    Attributes:
        merged: the checkpoint with merged tensors.
        base: the model without adapters.
        zero: the checkpoint as training wrote it.
        config_folder: holds the model's config.json.
        adapter_config: the text of peft's adapter_config.json.
    """

    merged: Checkpoint
    base: Mapping[str, MasterTensor]
    zero: Checkpoint
    config_folder: Path
    adapter_config: bytes


def plan_merge(run: Run, checkpoint: Manifest, zero: Checkpoint, folder: Path) -> Merge | None:
    """Plan the merge of the checkpoint's adapters into their base; None if the checkpoint has no adapters.

    `folder` holds the model's configuration. Weights are read only to compare the hashes of the base.

    Raises:
        ConversionError: the base differs from the one that training used, or the adapters do not fit it.
    """
    names = {file.name for file in checkpoint.files}
    if f"model/{ADAPTER_CONFIG}" not in names:
        return None
    text = read_file(run.store, checkpoint, f"model/{ADAPTER_CONFIG}")
    config = parse_adapter_config(text, origin=f"{checkpoint.key}/model/{ADAPTER_CONFIG}")
    stored = read_safetensors(_base_sources(run.store, checkpoint), origin="the base")
    with torch.device("meta"):
        model = model_of_config(folder)
    base = with_model_names(stored, model)
    merged = merge_adapters(base, zero, config)
    changed = sum(tensor.change is not None for tensor in merged.values())
    logger.info("%d of %d tensors have an adapter", changed, len(merged))
    whole = replace(zero, tensors=merged, aliases={}, trained=frozenset(merged), frozen=frozenset())
    return Merge(
        merged=whole,
        base=base_with_trained(base, zero),
        zero=zero,
        config_folder=folder,
        adapter_config=text,
    )


def with_model_names(stored: Mapping[str, MasterTensor], model: PreTrainedModel) -> dict[str, MasterTensor]:
    """Rename the tensors of any released layout to the names of `model`, of transformers' class.

    Raises:
        ConversionError: the layout joins or splits tensors, and only transformers' loader can convert that.
    """
    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    known = model.state_dict()
    found = {}
    for name, tensor in stored.items():
        plain, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        if converted is not None:
            raise ConversionError(
                f"{name} of the base is one of several parts that transformers joins while loading.",
                remedy="Save the base again with transformers' save_pretrained, and train on the result.",
            )
        found[plain] = replace(tensor, name=plain)
    return found


def peft_model(merge: Merge, dtype: torch.dtype, family_name: str) -> PreTrainedModel:
    """Build the unquantized base in `dtype`, with peft's adapters beside its weights and not merged."""
    from peft import LoraConfig, inject_adapter_in_model

    with tempfile.TemporaryDirectory(prefix="mantis-base-") as scratch:
        folder = Path(scratch)
        (folder / "config.json").write_bytes((merge.config_folder / "config.json").read_bytes())
        write_shards(plan_shards(merge.base.values(), dtype), folder)
        model = load_model(folder, dtype, family_name)
        (folder / ADAPTER_CONFIG).write_bytes(merge.adapter_config)
        injected = inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), model)
    weights = {
        name.removeprefix(PREFIX): tensor.read(0, tensor.numel).view(tensor.shape)
        for name, tensor in merge.zero.tensors.items()
        if ".lora_" in name
    }
    unexpected = injected.load_state_dict(weights, strict=False).unexpected_keys
    if unexpected:
        raise ConversionError(
            f"peft has no adapter at the checkpoint's {unexpected[0]} ({len(unexpected)} such tensors in all).",
            remedy="Convert another checkpoint, or train again: model/adapter_config.json belongs to another training.",
        )
    adapted: PreTrainedModel = injected.eval()
    return adapted


def _base_sources(store: ObjectStore, checkpoint: Manifest) -> dict[str, ByteSource]:
    """Open the base's files, after a comparison of sizes and hashes with those that training recorded."""
    prefix = f"{checkpoint.key}/model"
    inside = [file for file in checkpoint.files if file.name.startswith("model/") and file.name.endswith(SUFFIX)]
    if inside:
        files = tuple(file.model_copy(update={"name": file.name.removeprefix("model/")}) for file in inside)
    else:
        base = _read_base(read_file(store, checkpoint, f"model/{BASE}"), f"{checkpoint.key}/model/{BASE}")
        prefix = former_key(store, base.address) if "://" in base.address else base.address
        files = tuple(file for file in base.files if file.name.endswith(SUFFIX))
    concurrently(lambda file: _check_file(store, prefix, file), files)
    sources = store_sources(store, prefix)
    return {file.name: sources[file.name] for file in files}


def _check_file(store: ObjectStore, prefix: str, file: File) -> None:
    key = f"{prefix}/{file.name}"
    entry = store.stat(key)
    if entry is None or entry.size != file.size or hash_object(store, key, file.size) != file.sha256:
        found = "is missing" if entry is None else "is not the file that was trained on: its size or hash differs"
        raise ConversionError(f"{store.uri(key)} {found}.", remedy="Fetch the base again with `mantis model fetch`.")


def _read_base(text: bytes, origin: str) -> MergeBase:
    try:
        return MergeBase.model_validate_json(text, context=schema_versions.origin(origin))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConversionError(
            f"{origin}: {'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}.", remedy="Train again."
        ) from None
