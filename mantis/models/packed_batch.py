"""What a model is given: pixels of images, and one training micro-step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

# Fields of PackedBatch that a model's forward reads as numbers. On a GPU, each read would wait for all queued kernels.
ON_HOST = ("cu_seqlens", "image_grid")


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Images as a family's vision part takes them, N of them in order.

    `values` is float32: [N, 3, H, W] where a family resizes all images to one size. Else it is [P, 3 * edge * edge],
    the patches of all images one after another, in the family's order, without padding. `image_grid` [N, 2] int64 holds
    the rows and columns of patches of each image.
    """

    values: Tensor
    image_grid: Tensor

    def pick(self, places: Sequence[int]) -> "Pixels":
        """Pick the images at `places`. An image may be picked several times."""
        index = torch.tensor(places, dtype=torch.int64)
        if self.values.ndim == 4:
            return Pixels(values=self.values[index], image_grid=self.image_grid[index])
        parts = torch.split(self.values, self.image_grid.prod(1).tolist())
        chosen = [self.values[:0], *(parts[place] for place in places)]
        return Pixels(values=torch.cat(chosen), image_grid=self.image_grid[index])


def joined(parts: Sequence[Pixels]) -> Pixels:
    """The images of all parts behind each other. There must be a part."""
    if len(parts) == 1:  # without a copy
        return parts[0]
    grids = torch.cat([part.image_grid for part in parts])
    return Pixels(values=torch.cat([part.values for part in parts]), image_grid=grids)


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """S samples behind each other in one row of T tokens, with N images and K target tokens.

    Attention never crosses a boundary: `position_ids` start at 0 in every segment, there is no mask and no cache.
    The tensors may lie on a GPU, those of `ON_HOST` never do.
    """

    input_ids: Tensor  # [1, T] int64, image tokens expanded
    position_ids: Tensor  # [1, T] int64
    cu_seqlens: Tensor  # [S + 1] int32: starts of the samples, from 0 to T
    pixel_values: Tensor  # `values` of the images' Pixels, in the order of their marks; N may be 0
    image_grid: Tensor  # [N, 2] int64, `image_grid` of the same
    targets: Tensor  # [K] int64, the tokens to predict
    target_positions: Tensor  # [K] int64, the position whose hidden state predicts it (label's position - 1)
    target_samples: Tensor  # [K] int64, 0..S-1
    weights: Tensor  # [S] float32: by how much each sample's loss is multiplied, mostly 1


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """The tokens of a packed row as a model's forward takes them; `segments` are the lengths of its samples."""

    input_ids: Tensor  # [1, T]
    position_ids: Tensor  # [1, T]
    segments: list[int]


def row_of(batch: PackedBatch, *, dummy: Sequence[int] = ()) -> PackedRow:
    """The batch's row, with the tokens of a dummy image as a segment of its own behind it.

    No target sees that segment: the vision part runs and gets gradients of exactly zero. Under ZeRO-3 every rank has to
    gather its parameters in every micro-step, or all of them hang.
    """
    segments = batch.cu_seqlens.diff().tolist()
    if not dummy:
        return PackedRow(input_ids=batch.input_ids, position_ids=batch.position_ids, segments=segments)
    tokens = torch.tensor([list(dummy)], dtype=batch.input_ids.dtype, device=batch.input_ids.device)
    places = torch.arange(len(dummy), dtype=batch.position_ids.dtype, device=batch.position_ids.device).unsqueeze(0)
    return PackedRow(
        input_ids=torch.cat([batch.input_ids, tokens], dim=1),
        position_ids=torch.cat([batch.position_ids, places], dim=1),
        segments=[*segments, len(dummy)],
    )


def packed_logits(model: PreTrainedModel, batch: PackedBatch, row: PackedRow, **images: Any) -> Tensor:
    """Run a model's forward over a row; returns the logits [K, vocabulary] of the batch's targets.

    Args:
        model: a model that is ready for packed batches.
        batch: the micro-step.
        row: its tokens, those of a dummy image included.
        images: what the model takes beside tokens.
    """
    output = model(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        attention_mask=None,  # a mask, even of ones, or a cache makes transformers attend across samples
        use_cache=False,
        logits_to_keep=batch.target_positions,
        segments=row.segments,
        **images,
    )
    logits: Tensor = output.logits[0]
    return logits
