"""Checks that training can decode an image. Size limits apply before any pixel is decoded.

Pixels are those of the official code, `PIL.Image.open(...).convert("RGB")` (TIGER-AI-Lab/Mantis,
mantis/train/train_utils.py). That code ignores the EXIF orientation, drops alpha, and takes the first frame.
"""

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from components.data.sources.rejection import RowRejected, RowRepaired
from mantis.hashing import sha256_bytes
from mantis.images.formats import FORMATS, PLAIN_JPEGS, open_image
from mantis.images.perceptual_hash import SIDE, decoded_levels, grey_levels, perceptual_hash

PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's modes of at most 8 bits that have an RGB form
WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # convert("RGB") clips them at 255, so the image turns white


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """An image that training can decode. Width and height are in pixels, without the EXIF orientation.

    `data` holds the image's own bytes or, if there was a `repair`, a PNG of its pixels. `sha256` is the hash of `data`.
    `phash` is the perceptual hash, empty for an image that is too small or too plain for one.
    """

    path: str
    data: bytes
    sha256: str
    width: int
    height: int
    phash: bytes
    repair: RowRepaired | None = None


def check_image(path: str, data: bytes, *, max_pixels: int) -> CheckedImage:
    """Decode `data` fully. Keep the bytes if training can read them, else write the 8-bit RGB pixels as PNG.

    PNG replaces the bytes of these images:
    - an animation, by its first frame;
    - an image in CMYK or another colour space that is not RGB;
    - an image of more than 8 bits per channel, scaled to 8.

    Raises:
        RowRejected: the bytes are no image, are damaged or cut off, or hold more than `max_pixels` pixels.
    """
    check = _check_jpeg if simplejpeg.is_jpeg(data) else _check_other
    try:
        return check(path, data, max_pixels)
    except UnidentifiedImageError:
        raise RowRejected("image-unknown", value=f"{path}: {len(data)} bytes", threshold=", ".join(FORMATS)) from None
    except RowRejected:
        raise
    except Exception as error:  # decoders raise errors of many types: OSError, ValueError, struct.error
        raise RowRejected("image-broken", value=f"{path}: {error}") from None


def _check_jpeg(path: str, data: bytes, max_pixels: int) -> CheckedImage:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _limit(path, width, height, max_pixels)
    # The smallest size that the perceptual hash can use, luma alone. The decoder still reads all coefficients, so it
    # finds damage, but it needs little time and memory for pixels.
    if colours in PLAIN_JPEGS:
        pixels = simplejpeg.decode_jpeg(
            data, colorspace="GRAY", fastdct=True, min_height=SIDE, min_width=SIDE, strict=True
        )
        return _kept(path, data, width, height, decoded_levels(pixels[:, :, 0], width, height))
    simplejpeg.decode_jpeg(data, colorspace="CMYK", min_height=1, min_width=1, strict=True)
    with open_image(data) as image:
        return _rewritten(path, image.convert("RGB"), "image-colours", colours)


def _check_other(path: str, data: bytes, max_pixels: int) -> CheckedImage:
    with open_image(data) as image:
        _limit(path, *image.size, max_pixels)
        image.load()
        if getattr(image, "is_animated", False):
            return _rewritten(path, _first_frame(data), "image-frames", "several")
        if image.mode in WIDE_MODES:
            return _rewritten(path, _rgb(image), "image-depth", image.mode)
        if image.mode not in PLAIN_MODES:
            return _rewritten(path, _rgb(image), "image-colours", image.mode)
        return _kept(path, data, *image.size, grey_levels(data))


def _first_frame(data: bytes) -> Image.Image:
    with open_image(data) as image:  # opened again, since the search for a second frame has moved the first handle
        return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    return _narrow(image) if image.mode in WIDE_MODES else image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """Scale grey values to 8 bits: 16-bit integers from 0..65535, other values from their own range."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not numbers")
    low, high = 0.0, 65_535.0
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    scaled = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _kept(path: str, data: bytes, width: int, height: int, levels: NDArray[np.float64] | None) -> CheckedImage:
    return CheckedImage(
        path=path,
        data=data,
        sha256=sha256_bytes(data),
        width=width,
        height=height,
        phash=perceptual_hash(levels),
    )


def _rewritten(path: str, image: Image.Image, reason: str, found: str) -> CheckedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    return CheckedImage(
        path=path,
        data=data,
        sha256=sha256_bytes(data),
        width=image.width,
        height=image.height,
        phash=perceptual_hash(grey_levels(data)),
        repair=RowRepaired(reason=reason, value=f"{path}: {found}", threshold="8-bit RGB, one frame"),
    )


def _limit(path: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RowRejected("image-pixels", value=f"{path}: {width} x {height}", threshold=str(max_pixels))
