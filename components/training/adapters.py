"""LoRA and DoRA beside frozen weights, quantized or not, by peft and bitsandbytes.

LoRA: Hu et al. 2021; DoRA: Liu et al. 2024; QLoRA (nf4 in blocks of 64, their scales quantized too): Dettmers et al.
2023. Mantis' two settings are those of its ablations (train_idefics2.py, train_mllava.py).
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from components.core.artifacts import describe_files
from components.core.errors import ConfigError
from components.core.settings import AdapterSettings, Recipe, TrainingSettings
from components.core.store import ObjectStore, key_of
from components.core.versions import Form, versioned
from components.models.family import Family

FACTOR = ".lora_"  # in the name of every parameter that peft adds


def add_adapters(model: PreTrainedModel, family: Family, settings: TrainingSettings, *, seed: int) -> None:
    """Put adapters beside the linear layers of the parts in `training.train`; what was there is frozen.

    The factors are drawn by `seed`. Adapters are fp32, as peft makes them whatever the weights beside them are.

    Raises:
        ConfigError: no layer is chosen.
    """
    from peft import inject_adapter_in_model

    adapter = _of(settings)
    chosen = list(_chosen(model, family, settings, adapter))
    if not chosen:
        raise ConfigError(
            f"training.adapter.targets = {list(adapter.targets)} name no linear layer of "
            f"training.train = {list(settings.train)}.",
            remedy="Leave targets out for all linear layers, or name the last part of their names, e.g. q_proj.",
        )
    if adapter.quantized:
        quantize(model, family, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora_config(adapter, chosen), model)


def lora_config(adapter: AdapterSettings, layers: list[str]) -> Any:
    """peft's configuration (a LoraConfig) for adapters beside these layers, named whole."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_dora=adapter.kind == "dora",
        init_lora_weights=True if adapter.init == "kaiming" else "gaussian",
        target_modules=layers,
    )


def quantize(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> None:
    """nf4 with double quantization for the linear layers of the parts in `training.adapter.quantized`, in place.

    The head stays as it is: its logits are what the loss is made of. They are quantized here, on the host.
    """
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    adapter = _of(settings)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    layers = [(name, layer) for name, layer in _linear(model) if family.part_of(name) in adapter.quantized]
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
        # On CPUs with AVX512-BF16 it would, for answers, replace the weights by others with scales cut to bf16, and
        # fail where a row is shorter than a block.
        small.support_avx512bf16_for_cpu = False
        model.set_submodule(name, small.to("cpu"))  # moving is what quantizes
    model.is_loaded_in_4bit = True  # what peft asks for


def is_adapter(parameter: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return FACTOR in parameter


def leave_base(store: ObjectStore, recipe: Recipe, build: Callable[[], PreTrainedModel], folder: Path) -> None:
    """Say what the adapters are merged into, unquantized: base.json for a model of this store, else its weights.

    Weights are built again, the same: in the process that trained they are quantized, or cut by ZeRO-3. They are in the
    precision of training, which is what the adapters were trained on or what was quantized for them.
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


def save_config(model: PreTrainedModel, folder: Path) -> None:
    """adapter_config.json, as peft writes it."""
    (config,) = model.peft_config.values()
    config.save_pretrained(folder)


def _of(settings: TrainingSettings) -> AdapterSettings:
    if settings.adapter is None:
        raise ValueError("the recipe trains no adapter")
    return settings.adapter


def _linear(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer but the head, by its name."""
    head = model.get_output_embeddings()
    yield from (
        (name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head
    )


def _chosen(
    model: PreTrainedModel, family: Family, settings: TrainingSettings, adapter: AdapterSettings
) -> Iterator[str]:
    for name, _ in _linear(model):
        last = name.rsplit(".", 1)[-1]
        if family.part_of(name) in settings.train and (not adapter.targets or last in adapter.targets):
            yield name
