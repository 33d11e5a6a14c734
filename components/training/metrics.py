"""Figures of one optimizer step."""

import resource
from dataclasses import dataclass

import torch

Row = dict[str, float]  # one line of metrics.jsonl: a figure by its name


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """One optimizer step over all ranks; times in seconds, of the first rank."""

    loss: float
    learning_rate: float
    gradient_norm: float
    samples: int
    tokens: int
    micro_steps: int
    idle: float  # share of the ranks' time that the plan leaves unused
    seconds: float
    data_seconds: float
    flops: float  # what the samples need
    tokens_computed: int  # with those of dummy images
    patches: int
    patches_computed: int
    taken: bool = True  # False: the step was bad and left out


def peak_memory(device: torch.device) -> int:
    """The most bytes this rank has held so far: of CUDA where it trains there, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
