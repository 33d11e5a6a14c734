"""Open encoded images from outside, in the accepted formats alone."""

import io

from PIL import Image

# An explicit list, because some of Pillow's other formats start programs or have no limits.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PLAIN_JPEGS = ("YCbCr", "Gray", "RGB")  # colours that libjpeg-turbo decodes to RGB; Pillow decodes CMYK
Image.MAX_IMAGE_PIXELS = None  # the recipe's limit replaces it, checked on the header before any decoding


def open_image(data: bytes) -> Image.Image:
    """Open the image whose header is at the start of `data`, without decoding pixels. The caller closes it.

    Raises:
        PIL.UnidentifiedImageError: the format is not in FORMATS.
        Exception: the decoder cannot read the header; decoders of foreign bytes fail in many ways.
    """
    return Image.open(io.BytesIO(data), formats=FORMATS)
