"""Causal attention within each segment of a packed row, for any decoder of transformers.

`register()` adds it under the name SEGMENTS. The row is not padded and no T x T mask is ever made: on a CPU that mask
makes attention many times slower, and it is where samples of a row leak into each other.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

SEGMENTS = "mantis_segments"


def register() -> None:
    """Make `attn_implementation=SEGMENTS` known to transformers."""
    AttentionInterface.register(SEGMENTS, segment_attention)
    AttentionMaskInterface.register(SEGMENTS, _no_mask)


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: list[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one row [1, heads, T, width] whose segments have the lengths `segments`, T in all.

    `segments` is a keyword argument of the model's forward, which transformers hands down to here. Returns
    [1, T, heads, width].
    """
    grouped = key.shape[1] != query.shape[1]
    outputs = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(*(torch.split(part, segments, dim=2) for part in (query, key, value)), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _no_mask(**_: Any) -> None:
    return None
