"""The loss of Mantis: mean over a sample's target tokens, then over the samples of the optimizer step.

That is what the official trainer's batch size 1 with gradient accumulation gives. Neither packing nor the number of
ranks or micro-steps changes it.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from components.models.batch import PackedBatch


def sample_losses(logits: Tensor, batch: PackedBatch) -> Tensor:
    """Mean negative log-likelihood of each sample's targets, [S] float32, of logits [K, vocabulary]."""
    samples = batch.boundaries.numel() - 1
    tokens = cross_entropy(logits.float(), batch.targets, reduction="none")
    counts = torch.bincount(batch.target_samples, minlength=samples).to(tokens.dtype)
    return tokens.new_zeros(samples).index_add(0, batch.target_samples, tokens / counts[batch.target_samples])


def share_of_step(losses: Tensor, *, samples_of_step: int, world_size: int) -> Tensor:
    """What a micro-step runs backward: its part of the step's mean, for an engine that averages over ranks.

    DeepSpeed divides the sum of the ranks' gradients by the world size; the factor takes that back.
    """
    return losses.sum() * (world_size / samples_of_step)
