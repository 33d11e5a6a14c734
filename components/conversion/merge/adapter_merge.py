"""Merge LoRA and DoRA adapters into the base they were trained on, a few rows at a time.

The order of operations is that of peft 0.21 (peft/tuners/lora/layer.py `Linear.merge` and variants.py
`DoraLinearVariant.merge_unsafe`). So the results differ by no more than BLAS's order of sums in the product B A, which
depends on the processor, the block, and the alignment of memory. DoRA: Liu et al. 2024, eq. 5. Each row of the weight
here is a column of the transposed weight there. It has the learned magnitude, and the direction of base plus update.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from components.conversion.zero.zero_checkpoint import Checkpoint, MasterTensor
from mantis.errors import ConversionError

PREFIX = "base_model.model."  # peft wraps the model in two modules
FACTOR = re.compile(
    r"(.+)\.lora_(A|B|magnitude_vector)(?:\.default)?(?:\.weight)?"
)  # names during training, and names that peft saves
SAVED = ".modules_to_save.default."
ORIGINAL = ".original_module."
FACTORS_IN_MEMORY = 16  # at least the number of writing threads, or each block reads the factors again
PUBLISHED = "Train LoRA or DoRA on linear layers, without biases and without rank or alpha patterns."


class AdapterConfig(BaseModel):
    """The fields of peft's adapter_config.json that decide the merge. The others matter to training alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: str
    r: int
    lora_alpha: float
    use_dora: bool = False
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    lora_bias: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}

    @property
    def scaling(self) -> float:
        """The factor of the product B A."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def parse_adapter_config(text: bytes, *, origin: str) -> AdapterConfig:
    """Parse peft's adapter_config.json.

    Raises:
        ConversionError: the text is not valid, or it describes a kind of adapter that cannot be merged.
    """
    try:
        config = AdapterConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConversionError(
            f"{origin}: {'.'.join(map(str, first['loc']))}: {first['msg']}.", remedy=PUBLISHED
        ) from None
    usual = {"peft_type": "LORA", "bias": "none", "lora_bias": False, "fan_in_fan_out": False}
    usual |= {"rank_pattern": {}, "alpha_pattern": {}}
    for name, value in usual.items():
        if getattr(config, name) != value:
            raise ConversionError(f"{origin}: {name} = {getattr(config, name)!r} cannot be merged.", remedy=PUBLISHED)
    return config


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """The update of one weight [rows, columns]: `scaling` times B A, with DoRA's magnitudes [rows] if there are any.

    `down` is A [rank, columns] and `up` is B [rows, rank], both fp32. `whole` reads a complete factor, because every
    block needs all of A.
    """

    down: MasterTensor
    up: MasterTensor
    magnitude: MasterTensor | None
    scaling: float
    whole: Callable[[MasterTensor], Tensor]

    def apply(self, rows: Tensor, first: int) -> Tensor:
        rank = self.down.shape[0]
        up = self.up.read(first * rank, len(rows) * rank).view(-1, rank)
        changed = (up @ self.whole(self.down)).mul_(self.scaling).add_(rows)
        if self.magnitude is not None:
            norms = torch.linalg.norm(changed, dim=1)
            changed.mul_((self.magnitude.read(first, len(rows)) / norms).view(-1, 1))
        return changed.to(rows.dtype)


def base_with_trained(base: Mapping[str, MasterTensor], zero: Checkpoint) -> dict[str, MasterTensor]:
    """Return the base before any adapter, with the tensors that were trained in full in place of its own.

    Raises:
        ConversionError: the base has no tensor of that name and shape.
    """
    tensors = dict(base)
    for name, tensor in zero.tensors.items():
        if FACTOR.fullmatch(name) or name not in zero.trained or name in zero.frozen or ORIGINAL in name:
            continue
        plain = plain_name(name)
        _check(plain, tensor.shape, base)
        tensors[plain] = replace(tensor, name=plain)
    return tensors


def merge_adapters(
    base: Mapping[str, MasterTensor], zero: Checkpoint, config: AdapterConfig
) -> dict[str, MasterTensor]:
    """Return the tensors of the merged model. The merge itself runs later, while each tensor is written.

    Raises:
        ConversionError: an adapter lacks a part, or no tensor of the base fits it.
    """
    tensors = base_with_trained(base, zero)
    modules: dict[str, dict[str, MasterTensor]] = {}
    for name, tensor in zero.tensors.items():
        match = FACTOR.fullmatch(name)
        if match:
            modules.setdefault(plain_name(match[1]), {})[match[2]] = tensor
    if not modules:
        raise ConversionError(
            "The checkpoint holds no adapter.", remedy="Train again: model/adapter_config.json states an adapter."
        )
    whole = lru_cache(FACTORS_IN_MEMORY)(_whole)
    for module, factors in modules.items():
        weight = f"{module}.weight"
        change = _low_rank(module, factors, config, whole)
        _check(weight, (change.up.shape[0], change.down.shape[1]), base)
        tensors[weight] = replace(tensors[weight], change=change)
    return tensors


def plain_name(name: str) -> str:
    """Translate peft's name of a tensor into the model's own name."""
    return name.removeprefix(PREFIX).replace(SAVED, ".").replace(".base_layer.", ".")


def _whole(tensor: MasterTensor) -> Tensor:
    return tensor.read(0, tensor.numel).view(tensor.shape)


def _low_rank(
    module: str,
    found: Mapping[str, MasterTensor],
    config: AdapterConfig,
    whole: Callable[[MasterTensor], Tensor],
) -> LowRank:
    wanted = {"A", "B", "magnitude_vector"} if config.use_dora else {"A", "B"}
    if set(found) != wanted:
        odd = ", ".join(f"lora_{part}" for part in sorted(wanted ^ set(found)))
        raise ConversionError(
            f"{module}: the checkpoint and model/adapter_config.json (use_dora {config.use_dora}) differ in {odd}.",
            remedy="Convert another step of the checkpoint, or train again.",
        )
    down, up, magnitude = found["A"], found["B"], found.get("magnitude_vector")
    fits = len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1] == config.r
    if not fits or (magnitude is not None and magnitude.numel != up.shape[0]):
        shapes = ", ".join(f"lora_{part} {list(tensor.shape)}" for part, tensor in sorted(found.items()))
        raise ConversionError(f"{module}: {shapes} do not form an adapter of rank {config.r}.", remedy=PUBLISHED)
    return LowRank(down=down, up=up, magnitude=magnitude, scaling=config.scaling, whole=whole)


def _check(name: str, shape: tuple[int, ...], base: Mapping[str, MasterTensor]) -> None:
    if name not in base:
        raise ConversionError(
            f"{name} was trained, but the base has no such tensor.", remedy="Restore the base of this training."
        )
    if base[name].shape != shape:
        raise ConversionError(
            f"{name} was trained as {list(shape)}; in the base it is {list(base[name].shape)}.",
            remedy="Restore the base of this training.",
        )
