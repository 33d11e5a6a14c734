"""The middle square of an image that is far longer than wide, without the resized whole.

A picture of 30,000 x 1 pixels has 3.4 billion pixels once its shorter edge is 336. Only the middle is needed, so only
the source pixels behind the middle are resampled. The filter is that of `interpolate(mode="bicubic", antialias=True)`;
rounding of its weights makes few values differ by 1/255, and single ones by 2/255.
"""

import numpy as np
from numpy.typing import NDArray

SUPPORT = 2.0  # pixels on each side, of the bicubic filter
SHARPNESS = -0.5


def middle_square(pixels: NDArray[np.uint8], size: int, resized: tuple[int, int]) -> NDArray[np.uint8]:
    """Return [size, size, 3], the middle of `pixels` [H, W, 3] resized to `resized` (height, width)."""
    rows, first_row = _weights(pixels.shape[0], resized[0], size)
    columns, first_column = _weights(pixels.shape[1], resized[1], size)
    source = pixels[first_row : first_row + rows.shape[1], first_column : first_column + columns.shape[1]]
    across = _rounded(np.einsum("xw,hwc->hxc", columns, source.astype(np.float64), optimize=True))
    return _rounded(np.einsum("yh,hxc->yxc", rows, across.astype(np.float64), optimize=True))


def _weights(length: int, resized: int, size: int) -> tuple[NDArray[np.float64], int]:
    """Weights [size, N] of the N source pixels that the middle `size` pixels of an edge need, and the first of them."""
    scale = length / resized
    stretch = max(scale, 1.0)
    centers = ((resized - size) // 2 + np.arange(size) + 0.5) * scale
    first = np.maximum((centers - SUPPORT * stretch + 0.5).astype(int), 0)
    last = np.minimum((centers + SUPPORT * stretch + 0.5).astype(int), length)
    places = np.arange(first[0], last[-1])
    weights = _bicubic((places + 0.5 - centers[:, None]) / stretch)
    weights[(places < first[:, None]) | (places >= last[:, None])] = 0
    return weights / weights.sum(axis=1, keepdims=True), int(first[0])


def _bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(distance)
    near = ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1
    far = SHARPNESS * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _rounded(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
