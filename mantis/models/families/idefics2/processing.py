"""Inputs of Idefics2: images keep their shapes, and each becomes the resampler's latents."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from torch import Tensor
from torch.nn.functional import pad
from transformers import Idefics2ImageProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, at_least, normalize, patches_of, resize_to
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tokenization import TextProcessor, token_id

SHORTEST = 378 / 980  # of the longest edge, to which small images are enlarged (idefics2-8b, preprocessor_config.json)
NORMALIZATION = Normalization(mean=tuple(IMAGENET_STANDARD_MEAN), std=tuple(IMAGENET_STANDARD_STD))


class Idefics2Processor(TextProcessor):
    """See Processor."""

    def image_ids(self, size: ImageSize) -> list[int]:
        return [token_id(self.tokenizer, self.image_token)] * self.settings.image.latents

    def image_tokens(self, size: ImageSize) -> int:
        return self.settings.image.latents

    def image_patches(self, size: ImageSize) -> int:
        return self.sample_patches([size])[0]

    def sample_patches(self, sizes: Sequence[ImageSize]) -> list[int]:
        smallest = self.settings.image.smallest
        fitted = [fit(*at_least(size.height, size.width, smallest), self.settings) for size in sizes]
        return [rows * columns for rows, columns in grids(fitted, self.settings)]

    @property
    def images_depend(self) -> bool:
        return self.settings.image.partial_patches

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        edge, smallest = self.settings.image.patch_size, self.settings.image.smallest
        resize = partial(resize_to, fit=partial(fit, settings=self.settings), kind="bilinear", smallest=smallest)
        parts, pixels = [torch.empty(0, 3 * edge * edge)], [resize(image) for image in images]
        image_grid = grids([(image.shape[2], image.shape[3]) for image in pixels], self.settings)
        for image, (rows, columns) in zip(pixels, image_grid, strict=True):
            whole = _cut_or_padded(normalize(image, NORMALIZATION), rows * edge, columns * edge)
            parts.append(patches_of(whole, edge).reshape(-1, 3 * edge * edge))
        return Pixels(values=torch.cat(parts), image_grid=torch.tensor(image_grid, dtype=torch.int64).reshape(-1, 2))

    def save(self, folder: Path) -> None:
        edge = self.settings.image.size
        processor = transformers.Idefics2Processor(
            image_processor=Idefics2ImageProcessor(
                size={"shortest_edge": round(SHORTEST * edge), "longest_edge": edge}, do_image_splitting=False
            ),
            tokenizer=self.tokenizer,
            image_seq_len=self.settings.image.latents,
            chat_template=jinja_template(self.template),
        )
        processor.save_pretrained(folder)


def fit(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """An image's height and width after the resize, within the limits of its longest and shortest edge.

    As transformers' Idefics2ImageProcessor does it, roundings included. An image keeps at least one patch, however
    small `model.image.size` is.
    """
    longest = settings.image.size
    shortest = max(round(SHORTEST * longest), settings.image.patch_size)
    ratio = width / height
    if width >= height and width > longest:
        height, width = int(longest / ratio), longest
    elif height > width and height > longest:
        height, width = longest, int(longest * ratio)
    return max(height, shortest), max(width, shortest)


def grids(sizes: Sequence[tuple[int, int]], settings: ModelSettings) -> list[tuple[int, int]]:
    """Rows and columns of patches of a sample's images, which have these heights and widths after the resize.

    With `partial_patches` an image keeps the patches that it fills only in part. The official model pads the images of
    a sample to the largest height and width there. What no whole patch of that frame covers is never seen.

    Source: Idefics2ImageProcessor.pad and Idefics2Model.forward of transformers 4.41.
    """
    edge = settings.image.patch_size
    if not settings.image.partial_patches or not sizes:
        return [(height // edge, width // edge) for height, width in sizes]
    rows, columns = (max(lengths) // edge for lengths in zip(*sizes, strict=True))
    return [(min(-(-height // edge), rows), min(-(-width // edge), columns)) for height, width in sizes]


def _cut_or_padded(values: Tensor, height: int, width: int) -> Tensor:
    """Normalized values [1, 3, H, W] as [1, 3, height, width]: zeros are added at the right and bottom, or cut."""
    right, bottom = max(0, width - values.shape[3]), max(0, height - values.shape[2])
    if right or bottom:
        values = pad(values, (0, right, 0, bottom))
    return values[:, :, :height, :width]
