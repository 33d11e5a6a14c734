"""Inputs of SmolVLM: an image is enlarged to whole tiles of one size, with a small copy of the whole behind them."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import Idefics3ImageProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, at_least, patches_of, resize_planes, resize_to
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tiled_images import side, tiled_pixels
from mantis.models.processing.tokenization import TextProcessor, token_id

AROUND, GLOBAL = "<fake_token_around_image>", "<global-img>"
MOST_EDGE = 6  # tiles of an edge that the vocabulary has names for
NORMALIZATION = Normalization(mean=tuple(IMAGENET_STANDARD_MEAN), std=tuple(IMAGENET_STANDARD_STD))


class SmolVlmProcessor(TextProcessor):
    """See Processor. The tiles of an image stand below each other: its grid is one tile wide."""

    def image_patches(self, size: ImageSize) -> int:
        rows, columns = self._tiles_of(size)
        return (rows * columns + 1) * side(self.settings) ** 2

    def image_tokens(self, size: ImageSize) -> int:
        return len(self.image_ids(size))

    def image_ids(self, size: ImageSize) -> list[int]:
        around, image, whole = (token_id(self.tokenizer, token) for token in (AROUND, self.image_token, GLOBAL))
        tile, ids = [image] * self.settings.image.latents, list[int]()
        rows, columns = self._tiles_of(size)
        for row in range(1, rows + 1):
            for column in range(1, columns + 1):
                ids += [around, token_id(self.tokenizer, tile_name(row, column)), *tile]
            ids += self._text("\n\n" if row == rows else "\n")
        return [*ids, around, whole, *tile, around]

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _tiles_of(self, size: ImageSize) -> tuple[int, int]:
        """Rows and columns of tiles; 0 where the small copy is all."""
        height, width = at_least(size.height, size.width, self.settings.image.smallest)
        height, width = whole_tiles(*longest_edge(height, width, self.settings), self.settings)
        edge = self.settings.image.size
        return (height // edge, width // edge) if height > edge or width > edge else (0, 0)

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        within = self.of_images(images)
        return tiled_pixels(map(within._cut, images), within.settings, NORMALIZATION)

    def _cut(self, image: bytes) -> Tensor:
        """uint8 [tiles, 3, size, size]: the image row by row, and the small copy."""
        size = self.settings.image.size
        fit = partial(longest_edge, settings=self.settings)
        first = resize_to(image, fit, "lanczos", smallest=self.settings.image.smallest)
        height, width = first.shape[2:]
        whole = resize_planes(first, *whole_tiles(height, width, self.settings), "lanczos")
        copy = resize_planes(whole, size, size, "lanczos")
        return copy if whole.shape == copy.shape else torch.cat([patches_of(whole, size).flatten(0, 1), copy])

    def save(self, folder: Path) -> None:
        size = self.settings.image.size
        processor = transformers.Idefics3Processor(
            image_processor=Idefics3ImageProcessor(
                size={"longest_edge": size * tiles_of_an_edge(self.settings)},
                max_image_size={"longest_edge": size},
            ),
            tokenizer=self.tokenizer,
            image_seq_len=self.settings.image.latents,
            chat_template=jinja_template(self.template),
        )
        processor.save_pretrained(folder)


def tile_name(row: int, column: int) -> str:
    """The token before a tile; rows and columns count from 1."""
    return f"<row_{row}_col_{column}>"


def tiles_of_an_edge(settings: ModelSettings) -> int:
    """Tiles of the longest edge of any image, so that their square is within `model.image.max_pixels`."""
    fitting = math.isqrt((settings.image.max_pixels or 0) // settings.image.size**2)
    return min(MOST_EDGE, max(1, fitting))


def longest_edge(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """Height and width after the first resize, also of a small image. Source: Idefics3ImageProcessor.resize."""
    longest = settings.image.size * tiles_of_an_edge(settings)
    ratio = width / height
    if width >= height:
        shorter = int(longest / ratio)
        return max(1, shorter + shorter % 2), longest
    shorter = int(longest * ratio)
    return longest, max(1, shorter + shorter % 2)


def whole_tiles(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """Height and width after the second resize. Source: Idefics3ImageProcessor.resize_for_vision_encoder."""
    edge, ratio = settings.image.size, width / height
    if width >= height:
        width = math.ceil(width / edge) * edge
        return math.ceil(max(1, int(width / ratio)) / edge) * edge, width
    height = math.ceil(height / edge) * edge
    return height, math.ceil(max(1, int(height * ratio)) / edge) * edge
