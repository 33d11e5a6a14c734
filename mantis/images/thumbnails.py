"""Small pictures that a page holds inline."""

import base64
from io import BytesIO

from mantis.images.formats import open_image

EDGE = 160  # largest number of pixels of a thumbnail's longer edge
QUALITY = 80


def thumbnail(data: bytes) -> str:
    """Shrink an encoded image. Returns a JPEG as data URI.

    Raises:
        Exception: the image cannot be decoded; decoders of foreign bytes fail in many ways.
    """
    buffer = BytesIO()
    with open_image(data) as image:
        small = image.convert("RGB")
        small.thumbnail((EDGE, EDGE))
        small.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
