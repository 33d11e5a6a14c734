"""Inputs of Fuyu: rows of patches of the image's own shape, each row ended by a newline token.

transformers' FuyuProcessor takes one image per text. Several are done as the official MFuyuProcessor does them. Each
stretch of text between images is tokenized alone. An image becomes its rows: a placeholder per patch, and a newline
token at the end of a row. One token stands before the rows and two behind them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from torch.nn.functional import pad
from transformers import FuyuImageProcessor

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, at_least, normalize, patches_of, resize_to
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tokenization import TextProcessor, token_id

PLACEHOLDER, NEWLINE = "|SPEAKER|", "|NEWLINE|"
BEGIN_IMAGE, END_IMAGE = "|IMAGE|", "|ENDOFIMAGE|"
BEGIN_TEXT, BEGIN_ANSWER, END_OF_TEXT = "<s>", "<0x04>", "|ENDOFTEXT|"
PAD_LEVEL = 1  # of 255: what the official processor pads images with, before it scales them
NORMALIZATION = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class FuyuProcessor(TextProcessor):
    """See Processor."""

    image_token = PLACEHOLDER
    splits_at_images = True

    def image_ids(self, size: ImageSize) -> list[int]:
        rows, columns = grid(size, self.settings)
        begin, end, text = (token_id(self.tokenizer, token) for token in (BEGIN_IMAGE, END_IMAGE, BEGIN_TEXT))
        row = [token_id(self.tokenizer, PLACEHOLDER)] * columns + [token_id(self.tokenizer, NEWLINE)]
        return [begin, *row * rows, end, text]

    def image_tokens(self, size: ImageSize) -> int:
        rows, columns = grid(size, self.settings)
        return rows * (columns + 1) + 3

    def image_patches(self, size: ImageSize) -> int:
        rows, columns = grid(size, self.settings)
        return rows * columns

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        edge, smallest = self.settings.image.patch_size, self.settings.image.smallest
        parts, image_grid = [torch.empty(0, 3 * edge * edge)], []
        for image in images:
            pixels = resize_to(image, partial(fit, settings=self.settings), "bilinear", smallest=smallest)
            height, width = pixels.shape[2:]
            padded = pad(pixels, (0, -width % edge, 0, -height % edge), value=PAD_LEVEL)
            padded = padded.contiguous(memory_format=torch.channels_last)
            patches = patches_of(normalize(padded, NORMALIZATION), edge)
            image_grid.append(patches.shape[:2])
            # Fuyu's patches have their colours last (FuyuImageProcessor.patchify_image).
            parts.append(patches.permute(0, 1, 3, 4, 2).reshape(-1, 3 * edge * edge))
        return Pixels(values=torch.cat(parts), image_grid=torch.tensor(image_grid, dtype=torch.int64).reshape(-1, 2))

    def save(self, folder: Path) -> None:
        image = self.settings.image
        processor = transformers.FuyuProcessor(
            image_processor=FuyuImageProcessor(
                size={"height": image.size, "width": image.width or image.size},
                patch_size={"height": image.patch_size, "width": image.patch_size},
            ),
            tokenizer=self.tokenizer,
        )
        self.tokenizer.chat_template = jinja_template(self.template)
        processor.save_pretrained(folder)


def fit(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """An image's height and width after the resize: made smaller to fit, never larger (FuyuImageProcessor.resize)."""
    largest = settings.image.size, settings.image.width or settings.image.size
    if height <= largest[0] and width <= largest[1]:
        return height, width
    scale = min(largest[0] / height, largest[1] / width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def grid(size: ImageSize, settings: ModelSettings) -> tuple[int, int]:
    """Rows and columns of patches of an image; one that a patch only partly covers is filled up."""
    height, width = fit(*at_least(size.height, size.width, settings.image.smallest), settings)
    return -(-height // settings.image.patch_size), -(-width // settings.image.patch_size)
