"""FLOP that training needs, and FLOP/s that a device can do; their quotient is MFU.

MFU counts only the work that the samples need (PaLM, arXiv 2204.02311, appendix B). It excludes recomputation under
activation checkpointing and the positions of dummy images.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from components.training.batching.sample_plan import CostModel
from mantis.config.bounded_yaml import parse_yaml
from mantis.config.training_settings import TrainingSettings
from mantis.models.family import Family
from mantis.models.flop_groups import FlopGroup, Merged, flop_group

GEMM_SIZE = 768
GEMM_REPEATS = 7

Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOP that training needs per unit of a sample: forward, and backward as far as gradients flow."""

    token: float  # linear layers of the text model, per position
    pair: float  # causal attention, per squared position
    target: float  # the head, per target
    patch: float  # vision tower and projector, per patch
    patch_pair: float  # attention of the vision tower, per squared patch of one image
    largest: float  # patches of the largest image, or tile of an image, that the tower takes at once
    image: float  # a resampler's work on its latents, per image

    def __call__(self, *, tokens: Counts, targets: Counts, patches: Counts, images: Counts) -> NDArray[np.float64]:
        """FLOP of N samples, [N], from counts [N]. It assumes that all images of a sample have the same size."""
        lengths, seen = tokens.astype(np.float64), patches.astype(np.float64)
        together = np.minimum(seen / np.maximum(images, 1), self.largest)
        vision = self.patch * seen + self.patch_pair * seen * together
        text = self.token * lengths + self.pair * lengths**2 + self.target * targets
        return text + vision + self.image * images

    def cost_model(self) -> CostModel:
        """Costs for the plan in units of one token. Targets are few, and pairs of patches are constant per image."""
        return CostModel(quadratic=self.pair / self.token, patch=self.patch / self.token)


def flops_of(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> Flops:
    """Count FLOP from the model's parameters and shape.

    A matrix of N weights costs 2 N per position in the forward pass. It costs 2 N more for the gradient of its input if
    something below it is trained, and 2 N more if it is trained itself. The adapters' own FLOP are not counted.
    """
    counts = count_weights(model, family)
    head = _size(model.get_output_embeddings().weight)
    # Embeddings are looked up, which costs nothing. Tied embeddings count once, as the head.
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    body = counts.text - head - (0 if tied else _size(model.get_input_embeddings().weight))
    passes = {part: 1 + (part in settings.whole_parts) for part in ("vision", "projector", "text")}
    passes["text"] += 1 if {"vision", "projector", "text"} & set(settings.train) else 0
    passes["projector"] += "vision" in settings.train
    passes["vision"] += "vision" in settings.train
    text, vision = model.config.get_text_config(), getattr(model.config, "vision_config", None)
    pairs = 4 * whole_attention_layers(vision) * vision.hidden_size * passes["vision"] if vision is not None else 0
    both = 3 if settings.train else 1  # attention has no weights: one forward pass, and the gradients of both factors
    return Flops(
        token=2 * body * passes["text"],
        pair=2 * text.num_hidden_layers * text.hidden_size * both,
        target=2 * head * passes["text"],
        patch=2
        * (
            counts.vision * passes["vision"]
            - counts.pixels * ("vision" in settings.train)
            + (counts.projector + counts.latent_keys) * passes["projector"]
        ),
        patch_pair=pairs,
        largest=largest_image(vision),
        image=2
        * counts.latents
        * ((counts.latent_keys + counts.per_latent) * passes["projector"] + counts.cross_keys * passes["text"]),
    )


def whole_attention_layers(vision: Any) -> int:
    """Layers of a tower in which a patch attends to its whole image, by the tower's configuration.

    The other layers of Qwen2.5-VL attend within windows of 64 patches, which is less than a hundredth of their work.
    """
    windowed: Sequence[int] | None = getattr(vision, "fullatt_block_indexes", None)
    return int(vision.num_hidden_layers) if windowed is None else len(windowed)


def largest_image(vision: Any) -> float:
    """Patches of the largest image that a tower takes, by its configuration; infinite where that names none."""
    size, edge = (getattr(vision, name, None) for name in ("image_size", "patch_size"))
    if not size or not edge:
        return math.inf
    pairs = [value if isinstance(value, (list, tuple)) else (value, value) for value in (size, edge)]
    return float(math.prod(int(pixels) // int(patch) for pixels, patch in zip(*pairs, strict=True)))


@dataclass(kw_only=True)
class WeightCounts:
    """Weights of a model by the vectors that they are multiplied with."""

    vision: int = 0  # per patch
    projector: float = 0  # per patch; of a matrix that takes several patches at once, a part
    text: int = 0  # per token; cross attention and embeddings belong to it, whatever of it is trained
    pixels: int = 0  # those of `vision` and `projector` whose input are pixels, which need no gradient
    latents: int = 0  # latents that a resampler makes of an image; not a number of weights
    latent_keys: int = 0  # a resampler's keys and values: per latent and per patch
    per_latent: int = 0  # a resampler's other weights
    cross_keys: int = 0  # keys and values of a text model's cross attention, per latent


def count_weights(model: PreTrainedModel, family: Family) -> WeightCounts:
    """The model's weights, counted by the family's parameter and FLOP groups."""
    counts, groups = WeightCounts(), family.flop_groups()
    for name, parameter in model.named_parameters():
        match flop_group(name, groups):
            case FlopGroup.ADDED:
                pass
            case FlopGroup.LATENTS:
                counts.latents = int(getattr(parameter, "ds_shape", parameter.shape)[0])
            case FlopGroup.LATENT_KEYS:
                counts.latent_keys += _size(parameter)
            case FlopGroup.PER_LATENT:
                counts.per_latent += _size(parameter)
            case FlopGroup.CROSS_KEYS:
                counts.cross_keys += _size(parameter)
            case Merged(patches=patches):
                counts.projector += _size(parameter) / (patches or _joined_patches(parameter, model))
            case found:
                counts.pixels += _size(parameter) if found is FlopGroup.PIXELS else 0
                match family.parameter_group(name):
                    case "vision":
                        counts.vision += _size(parameter)
                    case "projector":
                        counts.projector += _size(parameter)
                    case _:
                        counts.text += _size(parameter)
    return counts


def _joined_patches(parameter: Any, model: PreTrainedModel) -> int:
    width = int(getattr(parameter, "ds_shape", parameter.shape)[-1])
    return width // int(model.config.vision_config.hidden_size)


def _size(parameter: Any) -> int:
    """Elements of a whole parameter, also under ZeRO-3."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak FLOP/s of this rank's device: the maker's figure for a GPU, a measured matrix product for a CPU.

    None for a GPU that is not in devices.yaml.
    """
    if device.type == "cpu":
        return _measured(dtype)
    name, kind = torch.cuda.get_device_name(device), "bf16" if dtype == torch.bfloat16 else "fp32"
    found = next((entry for entry in devices() if entry["match"] in name), None)
    return float(found[kind]) if found else None


@cache
def devices() -> tuple[dict[str, Any], ...]:
    """The entries of devices.yaml."""
    text = Path(__file__).with_name("devices.yaml").read_text()
    return tuple(parse_yaml(text)["devices"])


def _measured(dtype: torch.dtype) -> float:
    left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(GEMM_REPEATS):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return float(2 * GEMM_SIZE**3 / statistics.median(seconds))
