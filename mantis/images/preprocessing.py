"""Encoded images to pixel values, as transformers' image processors make them.

Resizing works on bytes and is the very function that transformers' torchvision processors call: equal to them bit by
bit, and for bilinear within 1/255 of Pillow. Bicubic overshoots, and what is clipped between the two passes depends on
their order: horizontal first here, in torchvision and in the Pillow of the official models' time (five values of ten
million differ by 2/255, none by more). Pillow 13 takes the cheaper order, and differs from all of these by up to 14/255
on tall images.
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
from torch import Tensor
from torch.nn.functional import interpolate

from mantis.errors import InputError
from mantis.images.formats import PLAIN_JPEGS, open_image

Pixels = NDArray[np.uint8]
Filter = Literal["bicubic", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Mean and standard deviation of each colour, of values from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def decode(data: bytes) -> Pixels:
    """RGB pixels [height, width, 3] of an encoded image; the first frame of several.

    Raises:
        InputError: these bytes are no image.
    """
    try:
        if simplejpeg.is_jpeg(data) and simplejpeg.decode_jpeg_header(data, strict=False)[2] in PLAIN_JPEGS:
            decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
            return decoded
        with open_image(data) as image:
            return np.array(image.convert("RGB"))
    except (ValueError, OSError, SyntaxError, struct.error) as error:
        raise InputError(
            f"An image of {len(data)} bytes cannot be decoded: {error}.",
            remedy="Data preparation drops such images: prepare the dataset again.",
        ) from None


def resize_and_crop(images: Sequence[bytes], size: int) -> Tensor:
    """uint8 [N, 3, size, size]: the shorter edge made `size` (bicubic, antialiased), then the middle cut out."""
    pixels = _empty(len(images), size)
    for image, place in zip(images, pixels, strict=True):
        planes = _planes(decode(image))
        height, width = planes.shape[2:]
        short = min(height, width)
        resized = _interpolate(planes, int(size * height / short), int(size * width / short), "bicubic")
        top, left = ((length - size) // 2 for length in resized.shape[2:])
        place.copy_(resized[0, :, top : top + size, left : left + size])
    return pixels


def resize_square(images: Sequence[bytes], size: int, kind: Filter = "bicubic") -> Tensor:
    """uint8 [N, 3, size, size]: both edges made `size` (antialiased), whatever the aspect ratio."""
    if len(images) == 1:  # nothing to put together: a copy is a tenth of the work on a small image
        return _interpolate(_planes(decode(images[0])), size, size, kind)
    pixels = _empty(len(images), size)
    for image, place in zip(images, pixels, strict=True):
        place.copy_(_interpolate(_planes(decode(image)), size, size, kind)[0])
    return pixels


def resize_to(image: bytes, fit: Callable[[int, int], tuple[int, int]], kind: Filter) -> Tensor:
    """uint8 [1, 3, height, width]: made what `fit` says to its height and width (antialiased)."""
    planes = _planes(decode(image))
    return _interpolate(planes, *fit(*planes.shape[2:]), kind)


def patches_of(values: Tensor, edge: int) -> Tensor:
    """[1, C, H, W] as patches [rows, columns, C, edge, edge]; H and W are multiples of `edge`."""
    _, channels, height, width = values.shape
    cut = values.reshape(channels, height // edge, edge, width // edge, edge)
    return cut.permute(1, 3, 0, 2, 4)


def normalize(pixels: Tensor, norm: Normalization) -> Tensor:
    """float32 pixel values of uint8 pixels [N, 3, H, W], channels last in memory."""
    count, _, height, width = pixels.shape
    scale, shift = _factors(norm, width)
    values = pixels.permute(0, 2, 3, 1).reshape(count * height, width * 3).to(torch.float32)
    torch.addcmul(shift, values, scale, out=values)
    return values.view(count, height, width, 3).permute(0, 3, 1, 2)


@lru_cache
def _factors(norm: Normalization, width: int) -> tuple[Tensor, Tensor]:
    """[3 * width] each, for rows of pixels: a factor per channel alone makes loops of three."""
    scale = torch.tensor([1 / (255 * std) for std in norm.std], dtype=torch.float64)
    shift = torch.tensor([-mean / std for mean, std in zip(norm.mean, norm.std, strict=True)], dtype=torch.float64)
    return scale.repeat(width).to(torch.float32), shift.repeat(width).to(torch.float32)


def _empty(count: int, size: int) -> Tensor:
    return torch.empty(count, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


def _planes(image: Pixels) -> Tensor:
    """[1, 3, H, W], channels last also by the stride of its first dimension, without which torch turns the result."""
    return torch.from_numpy(image).unsqueeze(0).permute(0, 3, 1, 2)


def _interpolate(planes: Tensor, height: int, width: int, kind: Filter) -> Tensor:
    if planes.shape[2:] == (height, width):
        return planes
    return interpolate(planes, size=(height, width), mode=kind, antialias=True, align_corners=False)
