"""Draw small images of one coloured shape on a grey ground, as JPEGs."""

from dataclasses import dataclass
from random import Random

import numpy as np
import simplejpeg
from numpy.typing import NDArray

EDGE = 48  # pixels
QUALITY = 92
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 200, 40),
}
SHADE = 20  # largest random change of each colour channel, up or down
# Half of the ground's grey level, near the mean that vision towers normalize by. On a light ground, the common part of
# all images outweighs the shape: a model with random weights learned nothing in 2,500 steps.
GROUND = (54, 66)
NEAR, FAR = 12.0, 36.0  # centres of the image's quarters, in pixels
PLACES = {
    "top left": (NEAR, NEAR),
    "top right": (FAR, NEAR),
    "bottom left": (NEAR, FAR),
    "bottom right": (FAR, FAR),
}
JITTER = 3.0  # largest random shift in pixels; the shape stays in its quarter
RADIUS = (6.0, 9.0)
SHAPES = ("circle", "square", "diamond")
ROW = np.arange(EDGE, dtype=np.float32) + 0.5  # centres of pixels


@dataclass(frozen=True, kw_only=True)
class Body:
    """The properties of a shape that stay the same when it moves; `radius` in pixels."""

    rgb: tuple[int, int, int]
    shape: str
    radius: float


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Draws images with random details. Images with `held_out` differ from all images without it.

    The ground's grey level is even in training and odd in benchmarks. At this JPEG quality, one level is more than two
    steps of a flat block's quantized mean. So the encoded images differ too.
    """

    random: Random
    held_out: bool

    def body(self, colour: str) -> Body:
        """Draw a random shade, form and size for a shape of this colour."""
        red, green, blue = (value + self.random.randint(-SHADE, SHADE) for value in COLOURS[colour])
        return Body(rgb=(red, green, blue), shape=self.random.choice(SHAPES), radius=self.random.uniform(*RADIUS))

    def picture(self, colour: str, place: str) -> bytes:
        """Draw a shape of this colour in this quarter of the image."""
        x, y = (centre + self.random.uniform(-JITTER, JITTER) for centre in PLACES[place])
        return self.draw(self.body(colour), x, y)

    def draw(self, body: Body, x: float, y: float) -> bytes:
        """Encode a JPEG of `body` with its centre at (x, y) pixels from the top left."""
        ground = 2 * self.random.randint(*GROUND) + self.held_out
        cover = np.minimum(np.maximum(_depth(body, x, y) + 0.5, 0), 1)
        pixels = np.empty((EDGE, EDGE, 3), dtype=np.uint8)
        for channel, value in enumerate(body.rgb):
            pixels[..., channel] = ground + cover * (value - ground)
        encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorsubsampling="444")
        return encoded


def _depth(body: Body, x: float, y: float) -> NDArray[np.float32]:
    """Return each pixel's distance from the body's edge in pixels [EDGE, EDGE]; negative outside."""
    across, down = np.abs(ROW - x), np.abs(ROW - y)[:, None]
    if body.shape == "circle":
        distance = np.sqrt(across * across + down * down)
    elif body.shape == "square":
        distance = np.maximum(across, down) * 1.1
    else:
        distance = (across + down) * 0.8
    depth: NDArray[np.float32] = body.radius - distance
    return depth
