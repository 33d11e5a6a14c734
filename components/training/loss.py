"""The loss of Mantis: the mean over a sample's target tokens, then over the samples of the optimizer step.

A sample's weight multiplies its loss, and thus its gradient, whatever other samples its step has: a weight of 2 counts
as two visits. Every weight is 1 unless a row of the data states another.
The official trainer's batch size 1 with gradient accumulation gives the same loss. It does not depend on packing or on
the number of ranks and micro-steps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from components.training.logit_chunk import CHUNK_LOGITS
from mantis.models.family import Family
from mantis.models.packed_batch import PackedBatch


class LossHead:
    """The head of a model, which can return losses instead of logits.

    For K targets and a vocabulary V, fp32 logits and their gradient take 8 K V bytes: 8 GB for 8K targets of LLaMA-3.
    So the head computes the losses chunk by chunk, and again in the backward pass: only one chunk's logits exist at a
    time. The head's forward is replaced inside the model: ZeRO-3 gathers its weights only in the model's own forward.
    """

    def __init__(self, model: PreTrainedModel, *, chunk_logits: int = CHUNK_LOGITS) -> None:
        self._head: nn.Module = model.get_output_embeddings()
        self._logits: Callable[[Tensor], Tensor] = self._head.forward
        self._chunk_logits = chunk_logits
        self._targets: Tensor | None = None
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._head.forward = self._forward

    def sample_losses(self, family: Family, engine: Any, batch: PackedBatch) -> Tensor:
        """Mean negative log-likelihood of each sample's targets, times its weight, [S] float32."""
        if batch.targets.numel() * self._vocabulary <= self._chunk_logits:
            return sample_losses(family.forward(engine, batch), batch)
        self._targets = batch.targets
        try:
            return mean_per_sample(family.forward(engine, batch).flatten(), batch)
        finally:
            self._targets = None

    def _forward(self, hidden: Tensor) -> Tensor:
        """Logits [..., K, V] of hidden states [..., K, width]; losses [..., K, 1] if targets are set."""
        targets = self._targets
        if targets is None:
            return self._logits(hidden)
        size = max(1, self._chunk_logits // self._vocabulary)
        losses = [
            checkpoint(self._losses, states, chunk, use_reentrant=False, preserve_rng_state=False)
            for states, chunk in zip(torch.split(hidden.flatten(0, -2), size), torch.split(targets, size), strict=True)
        ]
        return torch.cat(losses).view(*hidden.shape[:-1], 1)

    def _losses(self, states: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self._logits(states).float(), targets, reduction="none")


def sample_losses(logits: Tensor, batch: PackedBatch) -> Tensor:
    """Mean negative log-likelihood of targets by sample, times its weight, [S] float32; from logits [K, vocabulary]."""
    return mean_per_sample(cross_entropy(logits.float(), batch.targets, reduction="none"), batch)


def mean_per_sample(losses: Tensor, batch: PackedBatch) -> Tensor:
    """Mean of the losses [K] over the targets of each of S samples, times the sample's weight, [S]."""
    samples = batch.cu_seqlens.numel() - 1
    # Not torch.bincount: on a GPU it reads the largest value back.
    counts = losses.new_zeros(samples).index_add(0, batch.target_samples, torch.ones_like(losses))
    means = losses.new_zeros(samples).index_add(0, batch.target_samples, losses / counts[batch.target_samples])
    return means * batch.weights.to(losses.dtype)


def share_of_step(losses: Tensor, *, samples_of_step: int, world_size: int) -> Tensor:
    """The scalar that a micro-step differentiates: its share of the step's mean loss over `samples_of_step` samples.

    DeepSpeed divides the sum of the ranks' gradients by the world size; the factor reverses that.
    """
    return losses.sum() * (world_size / samples_of_step)
