"""Encoded images to pixel values, as transformers' CLIP and SigLIP image processors make them, within 1/255."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from components.core.errors import InputError

Pixels = NDArray[np.uint8]


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
        if simplejpeg.is_jpeg(data) and simplejpeg.decode_jpeg_header(data, strict=False)[2] in ("YCbCr", "Gray"):
            decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
            return decoded
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise InputError(
            f"An image of {len(data)} bytes cannot be decoded: {error}.",
            remedy="Data preparation drops such images: prepare the dataset again.",
        ) from None


def resize_and_crop(images: Sequence[bytes], size: int) -> Tensor:
    """uint8 [N, 3, size, size]: the shorter edge made `size` (bicubic, antialiased), then the middle cut out."""
    return _stack([_crop(_resize(decode(data), size), size) for data in images], size)


def resize_square(images: Sequence[bytes], size: int) -> Tensor:
    """uint8 [N, 3, size, size]: both edges made `size` (bicubic, antialiased), whatever the aspect ratio."""
    return _stack([_interpolate(decode(data), size, size) for data in images], size)


def normalize(pixels: Tensor, norm: Normalization) -> Tensor:
    """float32 pixel values of uint8 pixels [N, 3, H, W]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (norm.mean, norm.std))
    return pixels.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)


def _resize(image: Pixels, size: int) -> Pixels:
    height, width = image.shape[:2]
    if height <= width:
        return _interpolate(image, size, int(size * width / height))
    return _interpolate(image, int(size * height / width), size)


def _crop(image: Pixels, size: int) -> Pixels:
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _interpolate(image: Pixels, height: int, width: int) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    planes = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
    resized = interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()


def _stack(images: list[Pixels], size: int) -> Tensor:
    if not images:
        return torch.empty(0, 3, size, size, dtype=torch.uint8)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
