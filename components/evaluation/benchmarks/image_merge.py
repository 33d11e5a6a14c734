"""How a sample's pictures are laid out for the model: in their sequence, or merged into one."""

import io
from functools import partial

from PIL import Image

from components.evaluation.benchmarks.sample_images import Picture
from mantis.hashing import fingerprint
from mantis.models.conversation import IMAGE_MARK, ImageSize

BORDER = 10  # pixels between two pictures: a black line, eight white ones, a black line


def merged(prompt: str, pictures: tuple[Picture, ...]) -> tuple[str, tuple[Picture, ...]]:
    """Prompt and pictures for a model that takes one picture: all of them side by side, its mark in front of the text.

    The published "merge" baselines are asked like this (TIGER-AI-Lab/Mantis, mantis/mllm_tools/mllm_utils.py,
    merge_images): every picture scaled to the mean height. Samples of one picture or none stay as they are.
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
    """PNG, so that merging loses nothing."""
    widths = [_width(picture.size, height) for picture in pictures]
    canvas = Image.new("RGB", (sum(widths) + BORDER * (len(pictures) - 1), height))
    left = 0
    for number, (picture, width) in enumerate(zip(pictures, widths, strict=True)):
        if number:
            canvas.paste((255, 255, 255), (left + 1, 0, left + BORDER - 1, height))
            left += BORDER
        with Image.open(io.BytesIO(picture.load())) as image:
            canvas.paste(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), (left, 0))
        left += width
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
