"""Inputs of Qwen-VL: images of any size, and one token for four patches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, at_least, normalize, patches_of, resize_to
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tokenization import TextProcessor, token_id

IMAGE_PAD = "<|image_pad|>"
MERGE = 2  # spatial_merge_size: a token holds MERGE x MERGE patches
FRAMES = 2  # temporal_patch_size: the vision part sees an image as two equal frames


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What differs between the processors of Qwen2.5-VL and Qwen3-VL."""

    normalization: Normalization
    processor: type[Any]
    video_processor: type[Any]


QWEN2_5 = Preparation(
    normalization=Normalization(mean=tuple(OPENAI_CLIP_MEAN), std=tuple(OPENAI_CLIP_STD)),
    processor=transformers.Qwen2_5_VLProcessor,
    video_processor=Qwen2VLVideoProcessor,
)
QWEN3 = Preparation(
    normalization=Normalization(mean=tuple(IMAGENET_STANDARD_MEAN), std=tuple(IMAGENET_STANDARD_STD)),
    processor=transformers.Qwen3VLProcessor,
    video_processor=Qwen3VLVideoProcessor,
)


class QwenVlProcessor(TextProcessor):
    """See Processor. The patches of an image come in blocks of MERGE x MERGE, as its tokens do."""

    image_token = IMAGE_PAD

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, preparation: Preparation) -> None:
        super().__init__(tokenizer, settings)
        self._preparation = preparation

    def image_patches(self, size: ImageSize) -> int:
        smallest, edge = self.settings.image.smallest, self.settings.image.patch_size
        height, width = fit(*at_least(size.height, size.width, smallest), self.settings)
        return (height // edge) * (width // edge)

    def image_tokens(self, size: ImageSize) -> int:
        return self.image_patches(size) // MERGE**2

    def image_ids(self, size: ImageSize) -> list[int]:
        return [token_id(self.tokenizer, IMAGE_PAD)] * self.image_tokens(size)

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        settings = self.of_images(images).settings
        edge, smallest = settings.image.patch_size, settings.image.smallest
        parts, image_grid = [torch.empty(0, 3 * edge * edge)], []
        for image in images:
            pixels = resize_to(image, partial(fit, settings=settings), "bicubic", smallest=smallest)
            patches = patches_of(normalize(pixels, self._preparation.normalization), edge)
            image_grid.append(patches.shape[:2])
            parts.append(_in_blocks(patches))
        return Pixels(values=torch.cat(parts), image_grid=torch.tensor(image_grid, dtype=torch.int64).reshape(-1, 2))

    def save(self, folder: Path) -> None:
        least, most = pixel_limits(self.settings)
        edge, normalization = self.settings.image.patch_size, self._preparation.normalization
        processor = self._preparation.processor(
            image_processor=Qwen2VLImageProcessor(
                size={"shortest_edge": least, "longest_edge": most},
                patch_size=edge,
                merge_size=MERGE,
                temporal_patch_size=FRAMES,
                image_mean=list(normalization.mean),
                image_std=list(normalization.std),
            ),
            tokenizer=self.tokenizer,
            video_processor=self._preparation.video_processor(patch_size=edge, merge_size=MERGE),
            chat_template=jinja_template(self.template, mark=IMAGE_PAD),
        )
        processor.save_pretrained(folder)


def pixel_limits(settings: ModelSettings) -> tuple[int, int]:
    """The fewest and the most pixels of an image after the resize: `shortest_edge` and `longest_edge` of transformers.

    Without a limit in the recipe they are one token, and the square of `model.image.size`.
    """
    image = settings.image
    block = (MERGE * image.patch_size) ** 2
    return image.min_pixels or block, max(block, image.max_pixels or image.size**2)


def fit(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """An image's height and width after the resize: whole blocks of patches, within the limits of pixels.

    As smart_resize of transformers' Qwen2VLImageProcessor, roundings included. That one refuses an image whose longer
    edge is more than 200 times the shorter; here it is treated as any other.
    """
    least, most = pixel_limits(settings)
    block = MERGE * settings.image.patch_size
    rounded = round(height / block) * block, round(width / block) * block
    if rounded[0] * rounded[1] > most:
        scale = math.sqrt(height * width / most)
        return tuple(max(block, math.floor(edge / scale / block) * block) for edge in (height, width))  # type: ignore[return-value]
    if rounded[0] * rounded[1] < least:
        scale = math.sqrt(least / (height * width))
        return tuple(math.ceil(edge * scale / block) * block for edge in (height, width))  # type: ignore[return-value]
    return rounded


def _in_blocks(patches: Tensor) -> Tensor:
    """[rows, columns, 3, edge, edge] as [P, 3 * edge * edge], block by block, and in a block row by row."""
    rows, columns, *shape = patches.shape
    blocks = patches.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, *shape).transpose(1, 2)
    return blocks.reshape(rows * columns, -1)
