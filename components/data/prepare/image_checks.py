"""Is this a sound image? Decoded once, fully, with limits that hold before a pixel is computed.

Pixels are what the official code trains on, `PIL.Image.open(...).convert("RGB")` (TIGER-AI-Lab/Mantis,
mantis/train/train_utils.py): EXIF orientation is not applied, alpha is dropped, of several frames the first is taken.
"""

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from components.data.sources.rejection import RowRejected, RowRepaired
from mantis.hashing import sha256_bytes
from mantis.images.formats import FORMATS, PLAIN_JPEGS, open_image

PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # Pillow's modes of at most 8 bits that have an RGB form
WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # which convert("RGB") clips at 255: a white picture


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """An image that training can decode; width and height in pixels, as stored (EXIF orientation is not applied).

    `data` are the image's own bytes, or a PNG of its pixels where `repair` says why; `sha256` is of `data`.
    """

    path: str
    data: bytes
    sha256: str
    width: int
    height: int
    repair: RowRepaired | None = None


def check_image(path: str, data: bytes, *, max_pixels: int) -> CheckedImage:
    """Decode `data` fully and keep its bytes as they are, unless training could not read them as they are.

    Written anew as PNG, and so without any loss of the 8-bit RGB pixels: the first frame of an animation, CMYK and
    other colours that are not RGB, and more than 8 bits, brought to 8.

    Raises:
        Refusal: no image, broken or cut off, or of more than `max_pixels`; its reason names `path`.
    """
    check = _check_jpeg if simplejpeg.is_jpeg(data) else _check_other
    try:
        return check(path, data, max_pixels)
    except UnidentifiedImageError:
        raise RowRejected("image-unknown", value=f"{path}: {len(data)} bytes", threshold=", ".join(FORMATS)) from None
    except RowRejected:
        raise
    except Exception as error:  # decoders of foreign bytes raise whatever they like: OSError, ValueError, struct.error
        raise RowRejected("image-broken", value=f"{path}: {error}") from None


def _check_jpeg(path: str, data: bytes, max_pixels: int) -> CheckedImage:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _limit(path, width, height, max_pixels)
    # An eighth of the size, luma alone: all coefficients are read, which is what finds damage, and next to none of the
    # time and memory that pixels take is needed.
    kind = "GRAY" if colours in PLAIN_JPEGS else "CMYK"
    simplejpeg.decode_jpeg(data, colorspace=kind, min_height=1, min_width=1, strict=True)
    if colours in PLAIN_JPEGS:
        return _kept(path, data, width, height)
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
        return _kept(path, data, *image.size)


def _first_frame(data: bytes) -> Image.Image:
    with open_image(data) as image:  # anew: looking for a second frame has moved the other
        return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    return _narrow(image) if image.mode in WIDE_MODES else image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits brought to 8; floating point values, and integers beyond 16 bits, by their own range."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not numbers")
    low, high = 0.0, 65_535.0
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = values.min(), values.max()
    scaled = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _kept(path: str, data: bytes, width: int, height: int) -> CheckedImage:
    return CheckedImage(path=path, data=data, sha256=sha256_bytes(data), width=width, height=height)


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
        repair=RowRepaired(reason=reason, value=f"{path}: {found}", threshold="8-bit RGB, one frame"),
    )


def _limit(path: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RowRejected("image-pixels", value=f"{path}: {width} x {height}", threshold=str(max_pixels))
