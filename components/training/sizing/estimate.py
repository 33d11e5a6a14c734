"""Estimates the needs of a training from the model's shape: GPU memory, checkpoint size, bandwidth.

ZeRO's memory follows its paper (arXiv 1910.02054, section 3.1). Activations assume activation checkpointing: it keeps
the input of every layer and recomputes one layer at a time. Use the estimates to choose machines;
`components.training.sizing.measure` measures on the local machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from components.training.logit_chunk import CHUNK_LOGITS
from mantis.config.bounded_yaml import parse_yaml
from mantis.errors import ConfigError
from mantis.models.registry import family_files

WEIGHT, GRADIENT, STATE = 2, 4, 12  # bytes per parameter: bf16; summed in fp32; fp32 master and both moments
RESERVE = 3.0e9  # CUDA context, NCCL buffers, ZeRO's buckets (two of 5e8 elements in bf16), fragmentation
MFU = 0.4  # assumed model FLOP utilization for the time between checkpoints
NODE = 8  # GPUs of one node


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of a model as far as it decides memory; parameters and widths are numbers of elements."""

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
    tokens: int  # mean of a sample


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Memory of one GPU in bytes, by use, and the tokens that fit into the rest."""

    weights: float
    secondary: float  # the node's own copy of the weights (hpZ)
    gradients: float
    optimizer: float
    gathered: float
    logits: float
    per_token: float
    budget: int  # tokens that fit into a micro-step; 0 if the states alone do not fit

    @property
    def states(self) -> float:
        """Bytes of everything but activations."""
        held = self.weights + self.secondary + self.gradients + self.optimizer
        return held + self.gathered + self.logits + RESERVE


@cache
def shapes() -> Mapping[str, Shape]:
    """The published models by name, from the sizes.yaml of each family."""
    entries: dict[str, Any] = {}
    for file in family_files("sizes.yaml"):
        entries |= parse_yaml(file.read_text())["models"]
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
        ConfigError: no published model has this name; lists all names.
    """
    if name not in shapes():
        raise ConfigError(f"{name!r} is not a published model.", remedy=f"Models: {', '.join(shapes())}.")
    return shapes()[name]


def needs(
    model: Shape, *, memory: float, ranks: int, zero_stage: int, cpu_offload: bool = False, per_node: int = NODE
) -> Needs:
    """The needs of one of `ranks` GPUs with `memory` bytes each and `per_node` GPUs on a node."""
    cut = ranks if zero_stage == 3 else 1
    # With several nodes, each node holds a whole copy of the weights beside ZeRO's share (hpZ, deepspeed_config.py).
    hpz = zero_stage == 3 and ranks > per_node
    layer = model.width * (2 * model.width + 2 * model.key_width + 3 * model.mlp)
    # The current layer and the prefetched next one, or the embedding table if it is larger.
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
    """Bytes per token of a micro-step: every layer's input in bf16, and the activations of one recomputed layer.

    A layer holds in bf16, with gradients: two normed inputs, q, k, v, the attention output, and three activations of
    the MLP's width. The two norms hold theirs in fp32. A trained vision tower also holds the inputs of its layers; here
    each token stands for one patch.
    """
    kept = 2 * model.width * model.layers
    layer = 2 * (2 * (4 * model.width + 2 * model.key_width + 3 * model.mlp)) + 4 * 2 * model.width
    vision = 2 * model.vision_width * model.vision_layers if model.vision_trained else 0
    return float(kept + layer + vision)


def checkpoint_bytes(model: Shape) -> float:
    """Bytes of a checkpoint: masters and moments of trained parameters, bf16 weights of frozen ones."""
    return STATE * model.trained + WEIGHT * (model.parameters - model.trained)


def step_seconds(model: Shape, *, ranks: int, peak: float, batch: int) -> float:
    """Estimated seconds of an optimizer step of `batch` samples at 40 % of `peak` FLOP/s per GPU."""
    work = 6.0 if model.trained > model.parameters / 2 else 4.0
    return work * model.parameters * model.tokens * batch / (ranks * peak * MFU)


def upload_bandwidth(model: Shape, *, ranks: int, peak: float, batch: int, every: int) -> float:
    """Bytes/s of all nodes together that upload a checkpoint in half the time until the next one."""
    return 2 * checkpoint_bytes(model) / (every * step_seconds(model, ranks=ranks, peak=peak, batch=batch))
