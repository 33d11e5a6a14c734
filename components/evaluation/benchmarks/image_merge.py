"""Merges the images of a sample into one, for models that take a single image."""

import io
from functools import partial

from PIL import Image

from components.evaluation.benchmarks.sample_images import Picture
from mantis.hashing import fingerprint
from mantis.images.formats import open_image
from mantis.models.conversation import IMAGE_MARK, ImageSize

BORDER = 10  # pixels between two images: a black line, eight white lines, a black line


def merged(prompt: str, pictures: tuple[Picture, ...]) -> tuple[str, tuple[Picture, ...]]:
    """Merge the images side by side, and put the only image mark in front of the prompt.

    Every image is scaled to the mean height. A sample of one image or none stays as it is. The published "merge"
    baselines do the same (TIGER-AI-Lab/Mantis, mantis/mllm_tools/mllm_utils.py, merge_images).
    """
    if len(pictures) < 2:
        return prompt, pictures
    height = sum(picture.size.height for picture in pictures) // len(pictures)
    widths = [_width(picture.size, height) for picture in pictures]
    one = Picture(
        path="merged:" + "+".join(picture.path for picture in pictures),
        sha256=fingerprint(["merged", *(picture.sha256 for picture in pictures)]),
        size=ImageSize(width=sum(widths) + BORDER * (len(pictures) - 1), height=height),
        load=partial(_side_by_side, pictures, height),
    )
    return f"{IMAGE_MARK}\n{prompt.replace(IMAGE_MARK, '').strip()}", (one,)


def _width(size: ImageSize, height: int) -> int:
    return max(1, size.width * height // size.height)


def _side_by_side(pictures: tuple[Picture, ...], height: int) -> bytes:
    """Paste the images side by side. The result is a PNG, so that merging loses no detail."""
    widths = [_width(picture.size, height) for picture in pictures]
    canvas = Image.new("RGB", (sum(widths) + BORDER * (len(pictures) - 1), height))
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
