"""The three-part rotary positions of Qwen-VL for a packed row, without a value of the GPU.

A token of text has the same position in all three parts. An image begins behind the token before it. Its tokens differ
by row in the second part, and by column in the third. The text behind an image continues after its longer edge, so a
large image takes fewer positions than tokens. Source: get_rope_index of transformers' Qwen2_5_VLModel.

transformers finds the images in the tokens, which lie on the GPU. Here the grids, which lie on the host, give tables by
the number of image tokens before a token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """By the place of a token among the M image tokens of a row, each [M]; `saved` [M + 1] by the tokens before."""

    within: Tensor  # the token's place in its image
    down: Tensor  # its row
    across: Tensor  # its column
    saved_before: Tensor  # positions that the images before its own save
    saved: Tensor  # positions that all images save which end within so many image tokens


def rotary_positions(
    input_ids: Tensor, position_ids: Tensor, image_grid: Tensor, *, image_token: int, merge: int
) -> Tensor:
    """Positions [3, 1, T] of the tokens `input_ids` [1, T].

    Args:
        position_ids: [1, T], from 0 in every sample of the row.
        image_grid: [N, 2] on the host, rows and columns of patches of the N >= 1 images.
        image_token: the token of all positions of images.
        merge: edge of a token in patches.
    """
    tables = _tables(image_grid // merge, input_ids.device)
    plain = position_ids[0]
    is_image = input_ids[0] == image_token
    before = is_image.cumsum(0) - is_image.long()
    starts = torch.arange(len(plain), device=plain.device) - plain
    saved_by_others = tables.saved[before[starts]]  # by the samples before
    text = plain - tables.saved[before] + saved_by_others
    place = before.clamp(max=len(tables.within) - 1)
    first = plain - tables.within[place] - tables.saved_before[place] + saved_by_others
    image = torch.stack([first, first + tables.down[place], first + tables.across[place]])
    return torch.where(is_image, image, text).unsqueeze(1)


def padded_positions(
    input_ids: Tensor, attention_mask: Tensor, image_grid: Tensor, *, image_token: int, merge: int
) -> tuple[Tensor, Tensor]:
    """Positions [3, B, T] of padded samples, and by how much [B, 1] the next position differs from the length.

    Args:
        input_ids: [B, T]; the images of all samples stand in `image_grid` in order.
        attention_mask: [B, T], 0 at padding, whose positions are 0.
    """
    tokens = attention_mask.long()
    plain = (tokens.cumsum(1) - 1).clamp(min=0)
    found = rotary_positions(
        input_ids.view(1, -1), plain.view(1, -1), image_grid, image_token=image_token, merge=merge
    ).view(3, *input_ids.shape)
    positions = found * tokens
    return positions, (positions.amax(dim=(0, 2)) + 1 - tokens.sum(1)).unsqueeze(1)


def _tables(grids: Tensor, device: torch.device) -> _Tables:
    within, down, across, saved_before, saved = [], [], [], [], [torch.zeros(1, dtype=torch.int64)]
    total = 0
    for rows, columns in grids.tolist():
        count = rows * columns
        within.append(torch.arange(count))
        down.append(torch.arange(rows).repeat_interleave(columns))
        across.append(torch.arange(columns).repeat(rows))
        saved_before.append(torch.full((count,), total))
        saved.append(torch.full((count,), total))
        total += count - max(rows, columns)
        saved[-1][-1] = total
    names = ("within", "down", "across", "saved_before", "saved")
    lists = (within, down, across, saved_before, saved)
    return _Tables(**{name: torch.cat(parts).to(device) for name, parts in zip(names, lists, strict=True)})
