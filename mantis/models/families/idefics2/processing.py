"""Inputs of Idefics2: images keep their shapes, and each becomes the resampler's latents."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from transformers import Idefics2ImageProcessor
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, normalize, patches_of, resize_to
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
        height, width = fit(size.height, size.width, self.settings)
        edge = self.settings.image.patch_size
        return (height // edge) * (width // edge)

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        edge = self.settings.image.patch_size
        parts, image_grid = [torch.empty(0, 3 * edge * edge)], []
        for image in images:
            pixels = resize_to(image, partial(fit, settings=self.settings), "bilinear")
            # What is left beyond the last whole patch is never seen, as in transformers.
            height, width = (length // edge * edge for length in pixels.shape[2:])
            patches = patches_of(normalize(pixels[:, :, :height, :width], NORMALIZATION), edge)
            parts.append(patches.reshape(-1, 3 * edge * edge))
            image_grid.append(patches.shape[:2])
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
