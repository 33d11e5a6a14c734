"""Inputs of InternVL: an image becomes tiles of one size in its shape, and a small copy of the whole behind them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import GotOcr2ImageProcessor, InternVLVideoProcessor, PreTrainedTokenizerFast
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, at_least, patches_of, resize_square, resize_to
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tiled_images import side, tiled_pixels
from mantis.models.processing.tokenization import TextProcessor, token_id

BEGIN, CONTEXT, END, VIDEO = "<img>", "<IMG_CONTEXT>", "</img>", "<video>"
MERGE = 2  # the inverse of downsample_ratio: a token holds MERGE x MERGE patches
NORMALIZATION = Normalization(mean=tuple(IMAGENET_DEFAULT_MEAN), std=tuple(IMAGENET_DEFAULT_STD))


class InternVlProcessor(TextProcessor):
    """See Processor. The tiles of an image stand below each other: its grid is one tile wide."""

    image_token = CONTEXT

    def image_patches(self, size: ImageSize) -> int:
        height, width = at_least(size.height, size.width, self.settings.image.smallest)
        return tiles(height, width, self.settings) * side(self.settings) ** 2

    def image_tokens(self, size: ImageSize) -> int:
        return self.image_patches(size) // MERGE**2 + 2

    def image_ids(self, size: ImageSize) -> list[int]:
        begin, context, end = (token_id(self.tokenizer, token) for token in (BEGIN, CONTEXT, END))
        return [begin, *[context] * (self.image_tokens(size) - 2), end]

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        within = self.of_images(images)
        return tiled_pixels(map(within._tiles, images), within.settings, NORMALIZATION)

    def _tiles(self, image: bytes) -> Tensor:
        """uint8 [tiles, 3, size, size]: the image row by row, and behind more than one tile the small copy."""
        settings = self.settings.image
        whole = resize_to(image, partial(_canvas, settings=self.settings), "bicubic", smallest=settings.smallest)
        cut = patches_of(whole, settings.size).flatten(0, 1)
        if len(cut) == 1:
            return cut
        return torch.cat([cut, resize_square([image], settings.size, smallest=settings.smallest)])

    def save(self, folder: Path) -> None:
        image = self.settings.image
        size = {"height": image.size, "width": image.size}
        mean, std = list(NORMALIZATION.mean), list(NORMALIZATION.std)
        processor = transformers.InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(
                size=size,
                crop_to_patches=True,
                min_patches=1,
                max_patches=most_tiles(self.settings),
                image_mean=mean,
                image_std=std,
            ),
            tokenizer=self._named_tokenizer(),
            video_processor=InternVLVideoProcessor(size=size, image_mean=mean, image_std=std),
            image_seq_length=(side(self.settings) // MERGE) ** 2,
            chat_template=jinja_template(self.template, mark=CONTEXT),
        )
        processor.save_pretrained(folder)

    def _named_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer with names for the tokens of images, by which transformers' processor finds them."""
        known = {
            name: str(token) for name, token in self.tokenizer.special_tokens_map.items() if isinstance(token, str)
        }
        names = {"start_image_token": BEGIN, "context_image_token": CONTEXT, "end_image_token": END}
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer.backend_tokenizer,
            extra_special_tokens=names | {"video_token": VIDEO},
            clean_up_tokenization_spaces=False,
            padding_side="left",
            **known,
        )


def most_tiles(settings: ModelSettings) -> int:
    """The most tiles of an image beside the small copy: as many as `model.image.max_pixels` holds, and at least one."""
    return max(1, (settings.image.max_pixels or 0) // settings.image.size**2)


def tiles(height: int, width: int, settings: ModelSettings) -> int:
    """The tiles of an image, with the small copy behind more than one."""
    rows, columns = _grid(height, width, settings)
    return rows * columns + (rows * columns > 1)


def _grid(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """Rows and columns of the tiles, in a shape that is nearest to the image's."""
    size = settings.image.size
    columns, rows = get_optimal_tiled_canvas((height, width), (size, size), 1, most_tiles(settings))
    return rows, columns


def _canvas(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    rows, columns = _grid(height, width, settings)
    return rows * settings.image.size, columns * settings.image.size
