"""Is this a sound image? Decoded once, fully, with limits that hold before a pixel is computed."""

import io
from dataclasses import dataclass

import simplejpeg
from PIL import Image, UnidentifiedImageError

from components.core.hashing import sha256_bytes
from components.data.refusal import Refusal

# A list, since some of Pillow's other formats start programs or have no limits of their own.
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
Image.MAX_IMAGE_PIXELS = None  # the recipe's limit is checked instead, in the header, before anything is decoded


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """An image that decodes; width and height in pixels, as stored (EXIF orientation is not applied)."""

    path: str
    data: bytes
    sha256: str
    width: int
    height: int


def check_image(path: str, data: bytes, *, max_pixels: int) -> CheckedImage:
    """Decode `data` fully and keep its bytes as they are; the reasons of a refusal name `path`.

    Raises:
        Refusal: no image, broken or cut off, or of more than `max_pixels`.
    """
    check = _check_jpeg if simplejpeg.is_jpeg(data) else _check_other
    try:
        width, height = check(path, data, max_pixels)
    except UnidentifiedImageError:
        raise Refusal("image-unknown", value=f"{path}: {len(data)} bytes", threshold=", ".join(FORMATS)) from None
    except Refusal:
        raise
    except Exception as error:  # decoders of foreign bytes raise whatever they like: OSError, ValueError, struct.error
        raise Refusal("image-broken", value=f"{path}: {error}") from None
    return CheckedImage(path=path, data=data, sha256=sha256_bytes(data), width=width, height=height)


def _check_jpeg(path: str, data: bytes, max_pixels: int) -> tuple[int, int]:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _limit(path, width, height, max_pixels)
    # Luma alone: all coefficients are read, which is what finds damage, and a third of the memory is needed.
    simplejpeg.decode_jpeg(data, colorspace="CMYK" if colours in ("CMYK", "YCCK") else "GRAY", strict=True)
    return width, height


def _check_other(path: str, data: bytes, max_pixels: int) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        _limit(path, width, height, max_pixels)
        image.load()
    return width, height


def _limit(path: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Refusal("image-pixels", value=f"{path}: {width} x {height}", threshold=str(max_pixels))
