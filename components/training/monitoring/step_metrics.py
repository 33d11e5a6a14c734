"""Figures of one optimizer step."""

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from mantis.config.training_settings import Part

Row = dict[str, float]  # one line of metrics.jsonl: a figure by its name


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Figures of one optimizer step over all ranks; times are those of this rank, in seconds."""

    loss: float  # mean over the samples
    learning_rate: float
    gradient_norm: float  # before clipping; 0 for a skipped step
    samples: int
    tokens: int  # of the samples, with expanded images
    micro_steps: int  # of each rank
    idle: float  # share of the ranks' time that the plan leaves unused, 0 to 1
    seconds: float  # of the whole step, the wait for data included
    data_seconds: float  # wait for data
    flops: float  # FLOP that the samples need
    tokens_computed: int  # `tokens` and those of dummy images
    patches: int  # image patches of the samples
    patches_computed: int  # `patches` and those of dummy images
    taken: bool = True  # False: the step was bad and is skipped
    part_rates: Mapping[Part, float] = field(default_factory=dict)  # learning rates; empty if all parts have the same


def peak_memory(device: torch.device) -> int:
    """Peak memory of this rank in bytes: CUDA memory on a GPU, else that of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
