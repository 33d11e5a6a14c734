"""LoRA and DoRA adapters beside frozen weights, which may be quantized; with peft and bitsandbytes.

LoRA: Hu et al. 2021. DoRA: Liu et al. 2024. QLoRA (nf4 in blocks of 64 with quantized scales): Dettmers et al. 2023.
Mantis uses two settings in its ablations (train_idefics2.py, train_mllava.py).
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mantis.artifacts.manifest import describe_files
from mantis.artifacts.store_addresses import key_of
from mantis.config.recipe import Recipe
from mantis.config.training_settings import AdapterSettings, TrainingSettings
from mantis.errors import ConfigError, did_you_mean
from mantis.models.family import Family
from mantis.schema_versions import Form, versioned
from mantis.store.base import ObjectStore

FACTOR = ".lora_"  # part of the name of every parameter that peft adds


def add_adapters(model: PreTrainedModel, family: Family, settings: TrainingSettings, *, seed: int) -> None:
    """Add adapters to the linear layers of the parts in `training.train` that do not train whole.

    `seed` decides the initial factors. peft makes adapters in fp32, independent of the dtype of the frozen weights.

    Raises:
        ConfigError: a target names no layer, or the parts have none.
    """
    from peft import inject_adapter_in_model

    adapter = _of(settings)
    chosen = adapted_layers(model, family, settings)
    if adapter.quantized:
        quantize(model, family, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora_config(adapter, chosen), model)


def adapted_layers(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> list[str]:
    """The full names of the linear layers that get adapters.

    Raises:
        ConfigError: a target names no layer, or the parts have none.
    """
    adapter = _of(settings)
    names = [name for name, _ in _linear(model, adapter) if family.parameter_group(name) in settings.adapted_parts]
    by_target: dict[str, list[str]] = {}
    for name in names:
        by_target.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    parts = ", ".join(settings.adapted_parts)
    for target in adapter.targets:
        if target not in by_target:
            raise ConfigError(
                f"training.adapter.targets names {target!r}, but the parts with adapters ({parts}) have no linear "
                "layer of that name.",
                remedy=f"{did_you_mean(target, by_target)}Linear layers: {', '.join(sorted(by_target))}.",
            )
    if not names:
        raise ConfigError(
            f"training.adapter: the parts with adapters ({parts}) have no linear layer.",
            remedy="Name another part in training.train, or remove training.adapter.",
        )
    return [name for name in names if not adapter.targets or name.rsplit(".", 1)[-1] in adapter.targets]


def lora_config(adapter: AdapterSettings, layers: list[str]) -> Any:
    """peft's LoraConfig for adapters beside `layers`, which are full module names."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.rslora,
        init_lora_weights=True if adapter.init == "kaiming" else "gaussian",
        target_modules=layers,
    )


def quantize(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> None:
    """Quantize the linear layers of the parts in `training.adapter.quantized` to nf4, in place.

    The scales are quantized, too. The head is not quantized, because the loss comes from its logits. Modules to save
    are not quantized, because they are trained. Quantization runs on the host.
    """
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    adapter = _of(settings)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    layers = [
        (name, layer) for name, layer in _linear(model, adapter) if family.parameter_group(name) in adapter.quantized
    ]
    for name, layer in layers:
        small = Linear4bit(  # type: ignore[no-untyped-call]
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        small.weight = Params4bit(
            layer.weight.data.to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True, module=small
        )
        small.bias = layer.bias
        # On CPUs with AVX512-BF16, inference would replace the weights by ones with bf16 scales. It would fail if a row
        # is shorter than a block.
        small.support_avx512bf16_for_cpu = False
        model.set_submodule(name, small.to("cpu"))  # the move quantizes
    model.is_loaded_in_4bit = True  # peft reads it


def is_adapter(parameter: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return FACTOR in parameter


def in_module(name: str, module: str) -> bool:
    """Whether a module or parameter of this dotted name is `module` or lies in it, by peft's rule."""
    return re.match(rf"(^|.*\.){re.escape(module)}($|\..*)", name) is not None


def leave_base(store: ObjectStore, recipe: Recipe, build: Callable[[], PreTrainedModel], folder: Path) -> None:
    """Store the unquantized base of the adapters: base.json if the base lies in this store, else its weights.

    `build` makes the same weights again: in the training process they are quantized, or sharded by ZeRO-3. They are
    stored in the precision of training, because the adapters were trained on them in that precision.
    """
    settings = recipe.model
    if settings.base.startswith(f"{store.url}/") and not settings.vision and not settings.projector:
        key = key_of(store, settings.base)
        files = describe_files(store, key)
        weights = [file.model_dump() for file in files if file.name.endswith(".safetensors")]
        if weights:
            content = versioned(Form.ADAPTER_BASE, {"address": key, "files": weights})
            (folder / "base.json").write_text(json.dumps(content, indent=1))
            return
    model = build()
    if recipe.training.precision == "bf16":
        model = model.bfloat16()
    model.save_pretrained(folder)


def save_config(model: PreTrainedModel, settings: TrainingSettings, folder: Path) -> None:
    """Write peft's adapter_config.json to `folder`.

    It names the modules to save, so that peft understands a checkpoint. During training peft does not know them: it
    would keep a frozen copy of each beside the trained one.
    """
    (config,) = copy.deepcopy(model.peft_config).values()
    config.modules_to_save = list(_of(settings).modules_to_save) or None
    config.save_pretrained(folder)


def _of(settings: TrainingSettings) -> AdapterSettings:
    if settings.adapter is None:
        raise ValueError("the recipe trains no adapter")
    return settings.adapter


def _linear(model: PreTrainedModel, adapter: AdapterSettings) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer except the head and modules to save, with its name."""
    head = model.get_output_embeddings()
    yield from (
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer is not head
        and not any(in_module(name, module) for module in adapter.modules_to_save)
    )
