"""Perceptual hash of images (pHash, 256 bits), and the Hamming distances between many hashes at once.

The hash equals `phash(hash_size=16)` of the ImageHash library:
1. Scale the image to 64 x 64 grey levels and take their DCT-II.
2. Keep the 16 x 16 lowest frequencies.
3. Set a bit for each frequency that is above the median.

Decoding takes most of the time, so a JPEG is decoded at the smallest scale that still gives 64 pixels a side.
"""

from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from mantis.images.formats import open_image

SIDE = 64
LOWEST = 16
BITS = LOWEST * LOWEST
WORDS = BITS // 64

# Below these limits different images get equal hashes, e.g. two drawings of 48 pixels or two blank pages.
SMALLEST_SIDE = SIDE
LEAST_CONTRAST = 4.0  # standard deviation of the grey levels, 0 to 255

# Bits of 256. Measured on 377 photographs that were recompressed, halved, squeezed to a square or brightened. The hash
# of a changed photograph differs by at most 36 bits, in 95 % of the cases by at most 18. The hashes of two different
# photographs differ by at least 80 bits.
ALIKE = 24

Hashes = NDArray[np.uint64]
_ANGLES = np.pi * (2 * np.arange(SIDE)[None] + 1) * np.arange(LOWEST)[:, None] / (2 * SIDE)
_DCT = np.cos(_ANGLES)


def grey_levels(data: bytes) -> NDArray[np.float64] | None:
    """Grey levels [64, 64], 0 to 255, of an encoded image. None if the image is too small or too plain for a hash.

    Raises:
        OSError, ValueError: the bytes cannot be decoded as an image.
    """
    image = _decoded(data)
    return None if image is None else _levels(image)


def decoded_levels(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float64] | None:
    """`grey_levels` of an image of `width` x `height` pixels that was decoded to `pixels` [h, w]."""
    return _levels(Image.fromarray(pixels)) if min(width, height) >= SMALLEST_SIDE else None


def _levels(image: Image.Image) -> NDArray[np.float64] | None:
    levels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float64)
    return levels if levels.std() >= LEAST_CONTRAST else None


def _decoded(data: bytes) -> Image.Image | None:
    """The image in grey; None if its header gives a size that is too small."""
    if simplejpeg.is_jpeg(data):
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if min(height, width) < SMALLEST_SIDE:
            return None
        if colours not in ("CMYK", "YCCK"):
            pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY", fastdct=True, min_height=SIDE, min_width=SIDE)
            return Image.fromarray(pixels[:, :, 0])
    with open_image(data) as image:
        return image.convert("L") if min(image.size) >= SMALLEST_SIDE else None


def perceptual_hash(levels: NDArray[np.float64] | None) -> bytes:
    """Hash of one image as 32 bytes, from its `grey_levels`; empty if the image has none."""
    return b"" if levels is None else perceptual_hashes([levels]).tobytes()


def hashes_from(stored: Sequence[bytes]) -> Hashes:
    """Hashes [N, 4] from N values of `perceptual_hash` that are not empty."""
    return np.frombuffer(b"".join(stored), np.uint64).reshape(-1, WORDS)


def perceptual_hashes(levels: Sequence[NDArray[np.float64]]) -> Hashes:
    """Hashes [N, 4] of N images. `levels` holds N arrays [64, 64] of `grey_levels`."""
    if not levels:
        return np.empty((0, WORDS), np.uint64)
    low = (_DCT @ np.stack(levels) @ _DCT.T).reshape(len(levels), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)


def alike(ours: Hashes, theirs: Hashes, *, within: int = ALIKE) -> tuple[NDArray[np.int64], ...]:
    """Find every pair at a distance of at most `within` bits.

    Returns three arrays of one length: positions in `ours`, positions in `theirs`, distances in bits.
    """
    found: list[NDArray[np.int64]] = [np.empty((3, 0), np.int64)]
    for place, hash_ in enumerate(theirs):
        # One word of the four rules out nearly every pair.
        near = np.flatnonzero(np.bitwise_count(ours[:, 0] ^ hash_[0]) <= within)
        distances = np.bitwise_count(ours[near] ^ hash_).sum(axis=1, dtype=np.int64)
        kept = distances <= within
        found.append(np.stack([near[kept], np.full(kept.sum(), place), distances[kept]]))
    ours_at, theirs_at, distances = np.concatenate(found, axis=1)
    return ours_at, theirs_at, distances
