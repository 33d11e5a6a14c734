"""Images of samples: hash, size, and a function that loads their bytes on demand."""

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from mantis.config.data_settings import DataSettings
from mantis.hashing import sha256_bytes
from mantis.images.formats import open_image
from mantis.models.conversation import ImageSize

MAX_IMAGE_BYTES = DataSettings().max_image_bytes  # the limits of data preparation
MAX_IMAGE_PIXELS = DataSettings().max_image_pixels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a sample.

    `path` is relative to the benchmark's file. `size` is in pixels. `load()` returns the encoded bytes.
    """

    path: str
    sha256: str
    size: ImageSize
    load: Callable[[], bytes]


def file_picture(path: Path, name: str) -> Picture:
    """Make an image from a file. `name` becomes its path.

    Raises:
        OSError: the file is missing, is no image, or is too large. The error holds the file's name and the reason.
    """
    if path.stat().st_size > MAX_IMAGE_BYTES:
        raise _too_large(path.stat().st_size, str(path))
    data = path.read_bytes()
    return Picture(path=name, sha256=sha256_bytes(data), size=_size(data, str(path)), load=path.read_bytes)


def spooled_picture(data: bytes, name: str, spool: Path) -> Picture:
    """Make an image from bytes of an archive. The folder `spool` keeps equal bytes in one file.

    Raises:
        OSError: the bytes are no image, or too large a one.
    """
    digest, size = sha256_bytes(data), _size(data, name)
    path = spool / digest
    if not path.exists():
        temporary = spool / f"{digest}.{threading.get_ident()}"
        temporary.write_bytes(data)
        temporary.replace(path)  # atomic, since another thread may write the same bytes
    return Picture(path=name, sha256=digest, size=size, load=partial(path.read_bytes))


def held_picture(data: bytes, name: str) -> Picture:
    """Make an image from bytes that stay in memory.

    Raises:
        OSError: the bytes are no image, or too large a one.
    """
    return Picture(path=name, sha256=sha256_bytes(data), size=_size(data, name), load=lambda: data)


@lru_cache(maxsize=64)
def grey_picture(size: ImageSize) -> Picture:
    """A plain grey image of this size, for the `blind` control."""
    buffer = BytesIO()
    Image.new("RGB", (size.width, size.height), (128, 128, 128)).save(buffer, "PNG")
    data = buffer.getvalue()
    return Picture(path="grey", sha256=sha256_bytes(data), size=size, load=lambda: data)


def _size(data: bytes, name: str) -> ImageSize:
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_large(len(data), name)
    try:
        with open_image(data) as image:
            size = ImageSize(width=image.width, height=image.height)
    except Exception:  # decoders of foreign bytes fail in many ways
        raise OSError(errno.EINVAL, "it is no image of an accepted format", name) from None
    if size.width * size.height > MAX_IMAGE_PIXELS:
        words = f"it has {size.width} x {size.height} pixels, more than {MAX_IMAGE_PIXELS:,}"
        raise OSError(errno.EINVAL, words, name)
    return size


def _too_large(size: int, name: str) -> OSError:
    return OSError(errno.EFBIG, f"it has {size:,} bytes, more than {MAX_IMAGE_BYTES:,}", name)
