"""Encoded images from outside: the formats that are opened, by whoever opens one."""

import io

from PIL import Image

# A list, since some of Pillow's other formats start programs or have no limits of their own.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PLAIN_JPEGS = ("YCbCr", "Gray", "RGB")  # colours of JPEGs that libjpeg-turbo gives as RGB; CMYK goes through Pillow
Image.MAX_IMAGE_PIXELS = None  # the recipe's limit is checked instead, in the header, before anything is decoded


def open_image(data: bytes) -> Image.Image:
    """The image whose header is at the start of `data`, nothing decoded yet; close it.

    Raises:
        PIL.UnidentifiedImageError: none of FORMATS.
        Exception: a header that its decoder cannot read, in whatever way decoders of foreign bytes fail.
    """
    return Image.open(io.BytesIO(data), formats=FORMATS)
