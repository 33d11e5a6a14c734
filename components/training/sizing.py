"""What a training needs, derived from shapes: memory of a GPU, bytes of a checkpoint, disk, bandwidth.

The arithmetic of ZeRO is that of its paper (arXiv 1910.02054, section 3.1); activations are those that are held with
activation checkpointing, where a layer's input is kept and one layer is computed anew at a time. Estimates, to choose
machines by; `components.training.fit` measures on the machine that is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import ConfigError

WEIGHT, GRADIENT, STATE = 2, 4, 12  # bytes per parameter: bf16; summed in fp32; fp32 master and both moments
CHUNK_LOGITS = 2**26  # components.training.loss, which is not imported here: it imports torch
RESERVE = 3.0e9  # CUDA context, NCCL buffers, ZeRO's buckets (two of 5e8 elements in bf16), fragmentation
MFU = 0.4  # of training when the time between checkpoints is estimated
NODE = 8  # GPUs of one node


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model as far as memory goes; parameters and widths in elements."""

    name: str
    parameters: float
    trained: float
    layers: int
    width: int
    mlp: int
    key_width: int
    vocabulary: int
    vision_layers: int
    vision_width: int
    vision_trained: bool
    tokens: int  # of a sample, on average


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes of one GPU by what holds them, and what is left of it for tokens."""

    weights: float
    secondary: float  # the node's own copy of the weights (hpZ)
    gradients: float
    optimizer: float
    gathered: float
    logits: float
    per_token: float
    budget: int  # tokens that fit into a micro-step; 0: not even the states fit

    @property
    def states(self) -> float:
        """Without activations."""
        held = self.weights + self.secondary + self.gradients + self.optimizer
        return held + self.gathered + self.logits + RESERVE


@cache
def shapes() -> Mapping[str, Shape]:
    """The published models of sizes.yaml by their names."""
    entries: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("sizes.yaml").read_text())["models"]
    return {
        name: Shape(
            name=name,
            parameters=entry["parameters"],
            trained=entry["trained"],
            vision_layers=entry["vision"]["layers"],
            vision_width=entry["vision"]["width"],
            vision_trained=entry["vision"]["trained"],
            tokens=entry["tokens"],
            **entry["text"],
        )
        for name, entry in entries.items()
    }


def shape(name: str) -> Shape:
    """The published model `name`.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    if name not in shapes():
        raise ConfigError(f"{name!r} is no published model.", remedy=f"Models: {', '.join(shapes())}.")
    return shapes()[name]


def needs(
    model: Shape, *, memory: float, ranks: int, zero_stage: int, cpu_offload: bool = False, per_node: int = NODE
) -> Needs:
    """Of one of `ranks` GPUs of `memory` bytes, `per_node` of them on a node."""
    cut = ranks if zero_stage == 3 else 1
    # On more than one node each node holds the weights whole beside ZeRO's share of them: engine_options.py, hpZ.
    hpz = zero_stage == 3 and ranks > per_node
    layer = model.width * (2 * model.width + 2 * model.key_width + 3 * model.mlp)
    # The layer at work and the next one, which is fetched meanwhile; or the table of embeddings, where that is more.
    gathered = WEIGHT * max(2 * layer, model.width * model.vocabulary) if zero_stage == 3 else 0.0
    found = Needs(
        weights=WEIGHT * model.parameters / cut,
        secondary=WEIGHT * model.parameters / per_node if hpz else 0.0,
        gradients=GRADIENT * model.trained / ranks,
        optimizer=0.0 if cpu_offload else STATE * model.trained / ranks,
        gathered=gathered,
        logits=CHUNK_LOGITS * (4 + 4 + WEIGHT),
        per_token=activation_bytes(model),
        budget=0,
    )
    left = memory - found.states
    return Needs(**{**vars(found), "budget": max(0, int(left / found.per_token))})


def activation_bytes(model: Shape) -> float:
    """Bytes per token of a micro-step: every layer's input in bf16, and one layer's own while it is computed anew.

    Those are, in bf16, the two normed inputs, q, k, v, what attention gives, and three of the MLP's width, with their
    gradients; and the norms' two in fp32. An image's positions stand for its patches: a trained tower holds its layers'
    inputs for each as well.
    """
    kept = 2 * model.width * model.layers
    layer = 2 * (2 * (4 * model.width + 2 * model.key_width + 3 * model.mlp)) + 4 * 2 * model.width
    vision = 2 * model.vision_width * model.vision_layers if model.vision_trained else 0
    return float(kept + layer + vision)


def checkpoint_bytes(model: Shape) -> float:
    """Masters and moments of what is trained, and bf16 weights of what is frozen."""
    return STATE * model.trained + WEIGHT * (model.parameters - model.trained)


def step_seconds(model: Shape, *, ranks: int, peak: float, batch: int) -> float:
    """Estimated time of an optimizer step of `batch` samples at MFU of `peak` FLOP/s."""
    work = 6.0 if model.trained > model.parameters / 2 else 4.0
    return work * model.parameters * model.tokens * batch / (ranks * peak * MFU)


def upload_bandwidth(model: Shape, *, ranks: int, peak: float, batch: int, every: int) -> float:
    """Bytes per second from all nodes with which a checkpoint is up in half the time to the next one."""
    return 2 * checkpoint_bytes(model) / (every * step_seconds(model, ranks=ranks, peak=peak, batch=batch))
