"""What a model is given for one training micro-step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """S samples behind each other in one row of T tokens, with N images and K target tokens.

    Attention never crosses a boundary: `position_ids` start at 0 in every segment, there is no mask and no cache.
    """

    input_ids: Tensor  # [1, T] int64, image tokens expanded
    position_ids: Tensor  # [1, T] int64
    boundaries: Tensor  # [S + 1] int32, 0 = first, T = last (cu_seqlens)
    pixel_values: Tensor  # [N, 3, H, W] float32, in the order of their marks; N may be 0
    targets: Tensor  # [K] int64, the tokens to predict
    target_positions: Tensor  # [K] int64, the position whose hidden state predicts it (label's position - 1)
    target_samples: Tensor  # [K] int64, 0..S-1
