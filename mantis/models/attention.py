"""Causal attention within each segment of a packed row, for any decoder of transformers.

`register()` adds it under the name SEGMENTS. The row has no padding and no T x T mask. On a CPU such a mask makes
attention many times slower. A wrong mask also lets samples of a row see each other.

Three kernels compute it. On CUDA in half precision, one call computes all segments: FlashAttention-2 if `flash_attn` is
installed, else torch's varlen attention. Elsewhere, scaled dot product attention computes one segment after another.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache, lru_cache, partial
from importlib.metadata import version
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

SEGMENTS = "mantis_segments"
IMAGES = "mantis_images"
HALF = (torch.bfloat16, torch.float16)  # all that the kernels for several segments know

# (query, key, value, segments, scale, causal) -> output; [1, heads, T, width] in, [1, T, heads, width] out
Kernel = Callable[[Tensor, Tensor, Tensor, list[int], float | None, bool], Tensor]


def register() -> None:
    """Make `attn_implementation=SEGMENTS` and `IMAGES` known to transformers."""
    AttentionInterface.register(SEGMENTS, segment_attention)
    AttentionMaskInterface.register(SEGMENTS, _no_mask)
    AttentionInterface.register(IMAGES, image_attention)


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
    [1, T, heads, width]. Attention to something else than the row, such as images, has a mask and is plain.
    """
    if attention_mask is not None:
        plain = scaled_dot_product_attention(query, key, value, attention_mask, dropout_p=dropout, scale=scaling)
        return plain.transpose(1, 2).contiguous(), None
    if dropout:
        return by_segment(query, key, value, segments, scaling, True, dropout=dropout), None
    return kernel_for(query.device, query.dtype)(query, key, value, segments, scaling, True), None


def image_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of every patch to all patches of its image, for images behind each other in one row.

    Vision towers hand nothing down but a mask: in its place come the numbers of patches, a list.
    """
    if dropout:
        return by_segment(query, key, value, attention_mask, scaling, False, dropout=dropout), None
    return kernel_for(query.device, query.dtype)(query, key, value, attention_mask, scaling, False), None


def kernel_for(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest kernel there is for tensors of this kind."""
    if device.type != "cuda" or dtype not in HALF:
        return by_segment
    return flash if _has_flash() else varlen


def kernel_name(device: torch.device, dtype: torch.dtype) -> str:
    """The kernel of `kernel_for` in words, with the version of its package."""
    kernel = kernel_for(device, dtype)
    if kernel is flash:
        return f"flash-attn {version('flash_attn')}"
    if kernel is varlen:
        return f"varlen kernel of torch {torch.__version__}"
    return "scaled dot product attention, segment by segment"


def by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: list[int],
    scale: float | None,
    causal: bool = True,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot product attention, one segment after another."""
    attend = partial(
        scaled_dot_product_attention,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    # Split and joined by positions, the memory's first dimension, forward and backward copy whole blocks.
    rows = (torch.split(part.transpose(1, 2), segments, dim=1) for part in (query, key, value))
    outputs = [attend(*(part.transpose(1, 2) for part in parts)) for parts in zip(*rows, strict=True)]
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1)


def flash(
    query: Tensor, key: Tensor, value: Tensor, segments: list[int], scale: float | None, causal: bool = True
) -> Tensor:
    """FlashAttention-2's variable length kernel; half precision on CUDA."""
    flash_attn_varlen_func = importlib.import_module("flash_attn").flash_attn_varlen_func

    ends, longest = _cu_seqlens(tuple(segments), query.device), max(segments)
    row = flash_attn_varlen_func(
        *map(_rows, (query, key, value)), ends, ends, longest, longest, softmax_scale=scale, causal=causal
    )
    output: Tensor = row.unsqueeze(0)
    return output


def varlen(
    query: Tensor, key: Tensor, value: Tensor, segments: list[int], scale: float | None, causal: bool = True
) -> Tensor:
    """torch's variable length kernel, which is FlashAttention too; half precision on CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    ends, longest = _cu_seqlens(tuple(segments), query.device), max(segments)
    row = varlen_attn(
        _rows(query),
        _rows(key),
        _rows(value),
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0 if causal else -1),  # causal: everything before, nothing behind
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return cast(Tensor, row).unsqueeze(0)


def _rows(part: Tensor) -> Tensor:
    """[1, heads, T, width] as [T, heads, width]."""
    return part.squeeze(0).transpose(0, 1).contiguous()


@lru_cache(maxsize=8)
def _cu_seqlens(segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Where segments begin and end, [S + 1] int32; kept, since every layer of a micro-step asks for the same."""
    lengths = torch.tensor([0, *segments], dtype=torch.int32)
    return lengths.cumsum(0, dtype=torch.int32).to(device)


@cache
def _has_flash() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def _no_mask(**_: Any) -> None:
    return None
