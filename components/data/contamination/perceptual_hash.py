"""Which images look alike: the 256-bit DCT hash (pHash), and the Hamming distance between many at once.

The hash is that of the ImageHash library's `phash(hash_size=16)`: 64 x 64 grey levels, their DCT-II, the 16 x 16 lowest
frequencies, each above their median or not. JPEGs are decoded at the scale that suits, which is what costs time.
"""

import io
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
LOWEST = 16
WORDS = LOWEST * LOWEST // 64

# Below these an image has too little in it: two drawings of 48 pixels, or two blank pages, hash alike.
SMALLEST_SIDE = SIDE
LEAST_CONTRAST = 4.0  # standard deviation of the grey levels, 0 to 255

# Of 256 bits. Measured on 377 photographs: recompressed, halved, squeezed to a square or brightened they differ from
# themselves by at most 36 bits, 95 % of them by at most 18; no two of them by less than 80.
ALIKE = 24

Hashes = NDArray[np.uint64]
_ANGLES = np.pi * (2 * np.arange(SIDE)[None] + 1) * np.arange(LOWEST)[:, None] / (2 * SIDE)
_DCT = np.cos(_ANGLES)


def grey_levels(data: bytes) -> NDArray[np.float64] | None:
    """Grey levels [64, 64] of an encoded image, None where it is too small or too plain for a hash.

    Raises:
        OSError, ValueError: no image that can be decoded.
    """
    image = _decoded(data)
    if image is None:
        return None
    levels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float64)
    return levels if levels.std() >= LEAST_CONTRAST else None


def _decoded(data: bytes) -> Image.Image | None:
    """The image in grey, None where its header says that it is too small."""
    if simplejpeg.is_jpeg(data):
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if min(height, width) < SMALLEST_SIDE:
            return None
        if colours not in ("CMYK", "YCCK"):
            pixels = simplejpeg.decode_jpeg(data, colorspace="GRAY", fastdct=True, min_height=SIDE, min_width=SIDE)
            return Image.fromarray(pixels[:, :, 0])
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("L") if min(image.size) >= SMALLEST_SIDE else None


def perceptual_hashes(levels: Sequence[NDArray[np.float64]]) -> Hashes:
    """Hashes [N, 4] of N images as `grey_levels` gives them."""
    if not levels:
        return np.empty((0, WORDS), np.uint64)
    low = (_DCT @ np.stack(levels) @ _DCT.T).reshape(len(levels), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)


def alike(ours: Hashes, theirs: Hashes, *, within: int = ALIKE) -> tuple[NDArray[np.int64], ...]:
    """Every pair whose distance is at most `within`: positions in `ours`, positions in `theirs`, distances."""
    found: list[NDArray[np.int64]] = [np.empty((3, 0), np.int64)]
    for place, hash_ in enumerate(theirs):
        # One word of the four rules out nearly every pair.
        near = np.flatnonzero(np.bitwise_count(ours[:, 0] ^ hash_[0]) <= within)
        distances = np.bitwise_count(ours[near] ^ hash_).sum(axis=1, dtype=np.int64)
        kept = distances <= within
        found.append(np.stack([near[kept], np.full(kept.sum(), place), distances[kept]]))
    ours_at, theirs_at, distances = np.concatenate(found, axis=1)
    return ours_at, theirs_at, distances
