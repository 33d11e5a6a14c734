"""Merges the images of a sample into one, for models that take a single image."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

from PIL import Image

from mantis.errors import EvaluationError
from mantis.generation.sample_images import MAX_IMAGE_PIXELS, Picture
from mantis.hashing import fingerprint
from mantis.images.formats import open_image
from mantis.models.conversation import IMAGE_MARK, ImageSize

BORDER = 10  # pixels between two images: a black line, eight white lines, a black line


def merged(prompt: str, pictures: tuple[Picture, ...]) -> tuple[str, tuple[Picture, ...]]:
    """Merge the images side by side, and put the only image mark in front of the prompt.

    Every image is scaled to the mean height. A sample of one image or none stays as it is. The published "merge"
    baselines do the same (TIGER-AI-Lab/Mantis, mantis/mllm_tools/mllm_utils.py, merge_images). Unlike theirs, a result
    of more than MAX_IMAGE_PIXELS becomes lower: a strip of 30,000 x 1 pixels would fill the memory at another's height.

    Raises:
        EvaluationError: even at a height of one pixel the result has more than MAX_IMAGE_PIXELS.
    """
    if len(pictures) < 2:
        return prompt, pictures
    mean = sum(picture.size.height for picture in pictures) // len(pictures)
    height = _height_within_limit(pictures, mean)
    lowered = [] if height == mean else [str(height)]
    one = Picture(
        path="merged:" + "+".join(picture.path for picture in pictures),
        sha256=fingerprint(["merged", *(picture.sha256 for picture in pictures), *lowered]),
        size=ImageSize(width=_total_width(pictures, height), height=height),
        load=partial(_side_by_side, pictures, height),
    )
    return f"{IMAGE_MARK}\n{prompt.replace(IMAGE_MARK, '').strip()}", (one,)


def _height_within_limit(pictures: Sequence[Picture], height: int) -> int:
    """The largest height, at most `height`, at which the merged image has no more than MAX_IMAGE_PIXELS."""
    heights = range(1, height + 1)
    fitting = bisect_right(heights, MAX_IMAGE_PIXELS, key=lambda each: each * _total_width(pictures, each))
    if not fitting:
        raise EvaluationError(
            f"{' + '.join(picture.path for picture in pictures)}: merged, they have {_total_width(pictures, 1):,} x 1 "
            f"pixels or more. The limit is {MAX_IMAGE_PIXELS:,} pixels.",
            remedy="Set evaluation.layout to sequence, or remove the sample.",
        )
    return fitting


def _total_width(pictures: Sequence[Picture], height: int) -> int:
    return sum(_width(picture.size, height) for picture in pictures) + BORDER * (len(pictures) - 1)


def _width(size: ImageSize, height: int) -> int:
    return max(1, size.width * height // size.height)


def _side_by_side(pictures: tuple[Picture, ...], height: int) -> bytes:
    """Paste the images side by side. The result is a PNG, so that merging loses no detail."""
    widths = [_width(picture.size, height) for picture in pictures]
    canvas = Image.new("RGB", (_total_width(pictures, height), height))
    left = 0
    for number, (picture, width) in enumerate(zip(pictures, widths, strict=True)):
        if number:
            canvas.paste((255, 255, 255), (left + 1, 0, left + BORDER - 1, height))
            left += BORDER
        with open_image(picture.load()) as image:
            canvas.paste(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), (left, 0))
        left += width
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
