"""Inputs of Flamingo: squares of one size; an image takes one position, and cross attention sees it."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from transformers import IdeficsImageProcessor
from transformers.models.idefics.image_processing_idefics import IDEFICS_STANDARD_MEAN, IDEFICS_STANDARD_STD

from mantis.images.preprocessing import Normalization, normalize, resize_square
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tokenization import TextProcessor, token_id

NORMALIZATION = Normalization(mean=tuple(IDEFICS_STANDARD_MEAN), std=tuple(IDEFICS_STANDARD_STD))


class FlamingoProcessor(TextProcessor):
    """See Processor."""

    def image_ids(self, size: ImageSize) -> list[int]:
        return [token_id(self.tokenizer, self.image_token)]  # its latents take no positions

    def image_tokens(self, size: ImageSize) -> int:
        return 1

    def image_patches(self, size: ImageSize) -> int:
        return (self.settings.image.size // self.settings.image.patch_size) ** 2

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        image = self.settings.image
        image_grid = torch.full((len(images), 2), image.size // image.patch_size, dtype=torch.int64)
        pixels = resize_square(images, image.size, smallest=image.smallest)
        return Pixels(values=normalize(pixels, NORMALIZATION), image_grid=image_grid)

    def save(self, folder: Path) -> None:
        processor = transformers.IdeficsProcessor(
            image_processor=IdeficsImageProcessor(image_size=self.settings.image.size),
            tokenizer=self.tokenizer,
            image_size=self.settings.image.size,
        )
        self.tokenizer.chat_template = jinja_template(self.template)
        processor.save_pretrained(folder)
