"""Images as tiles of one size, for the families whose vision tower sees tiles."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, normalize, patches_of
from mantis.models.packed_batch import Pixels


def side(settings: ModelSettings) -> int:
    """Edge of a tile in patches."""
    return settings.image.size // settings.image.patch_size


def tiled_pixels(images: Iterable[Tensor], settings: ModelSettings, norm: Normalization) -> Pixels:
    """Normalize images and cut them into patches: each is uint8 [tiles, 3, size, size].

    The tiles of an image stand below each other: its grid is one tile wide.
    """
    edge, width = settings.image.patch_size, side(settings)
    seen = width * edge  # pixels behind the last whole patch are never seen
    parts, image_grid = [torch.empty(0, 3 * edge * edge)], []
    for image in images:
        cut = normalize(image, norm)
        image_grid.append((len(cut) * width, width))
        parts += [patches_of(tile[None, :, :seen, :seen], edge).reshape(-1, 3 * edge * edge) for tile in cut]
    return Pixels(values=torch.cat(parts), image_grid=torch.tensor(image_grid, dtype=torch.int64).reshape(-1, 2))
