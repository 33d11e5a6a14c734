"""Floating point operations that training needs, and what a device could do in the same time: their quotient is MFU.

Recomputation under activation checkpointing is not counted, nor are the positions of dummy images: MFU is of the work
that the samples need (PaLM, arXiv 2204.02311, appendix B).
"""

import statistics
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from transformers import PreTrainedModel

from components.core.settings import TrainingSettings
from components.models.family import Family
from components.training.plan import CostModel

GEMM_SIZE = 768
GEMM_REPEATS = 7

Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOP of a sample's training: forward, and backward as far as gradients run."""

    token: float  # linear layers of the text model, per position
    pair: float  # causal attention, per squared position
    target: float  # the head, per target
    patch: float  # vision tower and projector, per patch
    patch_pair: float  # attention of the vision tower, per squared patch of one image
    image: float  # what a resampler does on its latents, per image

    def __call__(self, *, tokens: Counts, targets: Counts, patches: Counts, images: Counts) -> NDArray[np.float64]:
        """Of every sample; its patches are taken to be of images of the same size."""
        lengths, seen = tokens.astype(np.float64), patches.astype(np.float64)
        vision = self.patch * seen + self.patch_pair * seen**2 / np.maximum(images, 1)
        text = self.token * lengths + self.pair * lengths**2 + self.target * targets
        return text + vision + self.image * images

    def cost_model(self) -> CostModel:
        """The plan's view: in units of one token. Targets are few and patches' pairs are constant per image."""
        return CostModel(quadratic=self.pair / self.token, patch=self.patch / self.token)


def flops_of(model: PreTrainedModel, family: Family, settings: TrainingSettings) -> Flops:
    """Counted from the model's parameters and shape.

    A matrix of N weights costs 2 N per position forward, as much for its input's gradient and as much for its own; the
    last two only where something below it, or it itself, is trained. What adapters add themselves is left out.
    """
    counts: dict[str, int] = {"vision": 0, "projector": 0, "text": 0}
    pixels = 0  # weights on pixels, whose gradient nobody asks for
    resampler = Resampler()
    for name, parameter in model.named_parameters():
        part = family.part_of(name)
        if resampler.takes(name, part, parameter):
            continue
        if "position_embedding" not in name:  # added, not multiplied
            # Cross attention and embeddings belong to the text model, whatever of it is trained.
            counts[part if part in counts else "text"] += _size(parameter)
        if "patch_embedding" in name:
            pixels += _size(parameter)
    head = _size(model.get_output_embeddings().weight)
    # Embeddings are looked up, which costs nothing; where they are tied, they are counted once, as the head.
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    body = counts["text"] - head - (0 if tied else _size(model.get_input_embeddings().weight))
    passes = {part: 1 + (part in settings.train and not settings.adapter) for part in counts}
    passes["text"] += 1 if {"vision", "projector", "text"} & set(settings.train) else 0
    passes["projector"] += "vision" in settings.train
    passes["vision"] += "vision" in settings.train
    text, vision = model.config.get_text_config(), getattr(model.config, "vision_config", None)
    pairs = 4 * vision.num_hidden_layers * vision.hidden_size * passes["vision"] if vision is not None else 0
    both = 3 if settings.train else 1  # attention has no weights: forward, and the gradients of both factors
    return Flops(
        token=2 * body * passes["text"],
        pair=2 * text.num_hidden_layers * text.hidden_size * both,
        target=2 * head * passes["text"],
        patch=2
        * (
            counts["vision"] * passes["vision"]
            - pixels * ("vision" in settings.train)
            + (counts["projector"] + resampler.keys) * passes["projector"]
        ),
        patch_pair=pairs,
        image=2
        * resampler.latents
        * ((resampler.keys + resampler.rest) * passes["projector"] + resampler.crossed * passes["text"]),
    )


@dataclass
class Resampler:
    """Weights on a perceiver's latents; its own keys and values are made of every patch as well."""

    latents: int = 0  # of an image
    keys: int = 0
    rest: int = 0
    crossed: int = 0  # keys and values of a language model's cross attention

    def takes(self, name: str, part: str, parameter: Any) -> bool:
        """Count a parameter that works on latents; False for any other."""
        is_key = ".k_proj." in name or ".v_proj." in name
        if part == "cross_attention" and is_key:
            self.crossed += _size(parameter)
        elif "perceiver" not in name:
            return False
        elif name.endswith("latents"):
            self.latents = int(getattr(parameter, "ds_shape", parameter.shape)[0])
        elif is_key:
            self.keys += _size(parameter)
        else:
            self.rest += _size(parameter)
        return True


def _size(parameter: Any) -> int:
    """Elements of a parameter, also where ZeRO-3 has cut it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s that this rank's device could do: its maker's figure, on a CPU that of a measured matrix product.

    None: a GPU that devices.yaml does not know.
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
    return tuple(yaml.safe_load(text)["devices"])


def _measured(dtype: torch.dtype) -> float:
    left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(GEMM_REPEATS):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return float(2 * GEMM_SIZE**3 / statistics.median(seconds))
