"""Turn encoded images into pixel values that equal those of transformers' image processors.

Resizing works on bytes and calls the same function as transformers' torchvision processors. So the results are equal
bit by bit. Bilinear results also lie within 1/255 of Pillow's.

Bicubic results overshoot, and clipping between the two passes depends on their order. Horizontal comes first here, in
torchvision, and in the Pillow of the official models' time: of ten million values, five differ by 2/255, none by more.
Pillow 13 chooses the cheaper order, and differs from all of these by up to 14/255 on tall images.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from mantis.errors import InputError
from mantis.images.formats import PLAIN_JPEGS, open_image
from mantis.images.long_images import middle_square

Pixels = NDArray[np.uint8]
Filter = Literal["bicubic", "bilinear", "lanczos"]
MAX_ENLARGED = 64_000_000  # pixels of an enlarged image: a long line would become gigabytes
LONGEST = 32  # times the shorter edge; a longer image is cut before it is resized


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Mean and standard deviation of each colour, for values from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def decode(data: bytes, *, smallest: int = 1) -> Pixels:
    """Decode an image to RGB pixels [height, width, 3]; an animation gives its first frame.

    An image with an edge below `smallest` pixels is enlarged to the size of `at_least`, by Pillow's bicubic filter.

    Raises:
        InputError: the bytes are not a valid image.
    """
    pixels = _decoded(data)
    height, width = pixels.shape[:2]
    size = at_least(height, width, smallest)
    if size == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))


def encoded_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image, from its header.

    Raises:
        InputError: the bytes are not an image.
    """
    try:
        with open_image(data) as image:
            return image.height, image.width
    except (ValueError, OSError, SyntaxError, struct.error) as error:
        raise _undecodable(data, error) from None


def at_least(height: int, width: int, smallest: int) -> tuple[int, int]:
    """Height and width of an image after both edges were enlarged to `smallest` pixels, its shape kept.

    The roundings are those of TIGER-AI-Lab/Mantis, mantis/train/data.py, getitem. They can leave one pixel less.
    """
    if height >= smallest and width >= smallest:
        return height, width
    scale = max(smallest / width, smallest / height)
    enlarged = int(height * scale), int(width * scale)
    return enlarged if enlarged[0] * enlarged[1] <= MAX_ENLARGED else (height, width)


def _decoded(data: bytes) -> Pixels:
    try:
        if simplejpeg.is_jpeg(data) and simplejpeg.decode_jpeg_header(data, strict=False)[2] in PLAIN_JPEGS:
            decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
            return decoded
        with open_image(data) as image:
            return np.array(image.convert("RGB"))
    except (ValueError, OSError, SyntaxError, struct.error) as error:
        raise _undecodable(data, error) from None


def _undecodable(data: bytes, error: Exception) -> InputError:
    return InputError(
        f"An image of {len(data)} bytes cannot be decoded: {error}.",
        remedy="Prepare the dataset again: data preparation drops such images.",
    )


def resize_and_crop(images: Sequence[bytes], size: int, *, smallest: int = 1) -> Tensor:
    """Return uint8 [N, 3, size, size]: the shorter edge resized to `size` (bicubic, antialiased), then cropped.

    `smallest` as in `decode`.
    """
    pixels = _empty(len(images), size)
    for image, place in zip(images, pixels, strict=True):
        decoded = decode(image, smallest=smallest)
        height, width = decoded.shape[:2]
        short = min(height, width)
        target = (int(size * height / short), int(size * width / short))
        if max(target) > LONGEST * size:
            place.copy_(torch.from_numpy(middle_square(decoded, size, target)).permute(2, 0, 1))
            continue
        resized = _interpolate(_planes(decoded), *target, "bicubic")
        top, left = ((length - size) // 2 for length in resized.shape[2:])
        place.copy_(resized[0, :, top : top + size, left : left + size])
    return pixels


def resize_square(images: Sequence[bytes], size: int, kind: Filter = "bicubic", *, smallest: int = 1) -> Tensor:
    """Return uint8 [N, 3, size, size]: both edges are resized to `size` (antialiased), whatever the aspect ratio.

    `smallest` as in `decode`.
    """
    if len(images) == 1:  # without concatenation, whose copy costs a tenth of the time of a small image
        return _interpolate(_planes(decode(images[0], smallest=smallest)), size, size, kind)
    pixels = _empty(len(images), size)
    for image, place in zip(images, pixels, strict=True):
        place.copy_(_interpolate(_planes(decode(image, smallest=smallest)), size, size, kind)[0])
    return pixels


def resize_to(image: bytes, fit: Callable[[int, int], tuple[int, int]], kind: Filter, *, smallest: int = 1) -> Tensor:
    """Return uint8 [1, 3, height, width], antialiased; `fit` maps the image's height and width to the new ones.

    `smallest` as in `decode`: an image is enlarged before `fit` gets its size.
    """
    planes = _planes(decode(image, smallest=smallest))
    return _interpolate(planes, *fit(*planes.shape[2:]), kind)


def patches_of(values: Tensor, edge: int) -> Tensor:
    """Cut [1, C, H, W] into patches [rows, columns, C, edge, edge]; H and W must be multiples of `edge`."""
    _, channels, height, width = values.shape
    cut = values.reshape(channels, height // edge, edge, width // edge, edge)
    return cut.permute(1, 3, 0, 2, 4)


def tiles_of(patches: Tensor, edge: int, width: int) -> Tensor:
    """The reverse of `patches_of` for squares: [P, 3 * edge * edge] as tiles [N, 3, width * edge, width * edge].

    `width` is the number of patches of a tile's edge. The patches of a tile stand row by row.
    """
    cut = patches.view(-1, width, width, 3, edge, edge)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(len(cut), 3, width * edge, width * edge)


def resize_planes(planes: Tensor, height: int, width: int, kind: Filter) -> Tensor:
    """Resize uint8 [1, 3, H, W] once more, to `height` x `width`; the same tensor if that is its size."""
    return _interpolate(planes, height, width, kind)


def normalize(pixels: Tensor, norm: Normalization) -> Tensor:
    """Normalize uint8 pixels [N, 3, H, W] to float32 of the same shape, channels last in memory."""
    count, _, height, width = pixels.shape
    scale, shift = _factors(norm, width)
    values = pixels.permute(0, 2, 3, 1).reshape(count * height, width * 3).to(torch.float32)
    torch.addcmul(shift, values, scale, out=values)
    return values.view(count, height, width, 3).permute(0, 3, 1, 2)


@lru_cache
def _factors(norm: Normalization, width: int) -> tuple[Tensor, Tensor]:
    """Return factor and offset, [3 * width] each, for whole rows of pixels: one per channel would loop over three."""
    scale = torch.tensor([1 / (255 * std) for std in norm.std], dtype=torch.float64)
    shift = torch.tensor([-mean / std for mean, std in zip(norm.mean, norm.std, strict=True)], dtype=torch.float64)
    return scale.repeat(width).to(torch.float32), shift.repeat(width).to(torch.float32)


def _empty(count: int, size: int) -> Tensor:
    return torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def _planes(image: Pixels) -> Tensor:
    """Return [1, 3, H, W], channels last in memory, also by the first stride; else torch would permute the result."""
    return torch.from_numpy(image).unsqueeze(0).permute(0, 3, 1, 2)


def _interpolate(planes: Tensor, height: int, width: int, kind: Filter) -> Tensor:
    if planes.shape[2:] == (height, width):
        return planes
    return interpolate(planes, size=(height, width), mode=kind, antialias=True, align_corners=False)
