"""Draw an epoch with lengths like those of Mantis-Instruct, around the published means of its subsets."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTEXT = 8192
OVERHEAD = 8  # tokens of the chat template


@dataclass(frozen=True, kw_only=True)
class Style:
    """The way a family turns images into positions, and the relative cost of its parts; sizes are from the papers."""

    name: str
    image_tokens: int
    edge: tuple[int, int]  # shortest and longest side of a vision grid, in patches
    quadratic: float  # components.training.batching.sample_plan.CostModel
    patch: float


# 2 L d / (2 N) for LLaMA-3-8B and Mistral-7B without embeddings and head; a trained and a frozen tower.
IDEFICS2 = Style(name="idefics2", image_tokens=64, edge=(27, 70), quadratic=1.87e-5, patch=0.059)
CLIP = Style(name="llava-clip", image_tokens=576, edge=(24, 24), quadratic=1.87e-5, patch=0.0145)
# Between min_pixels and max_pixels of the recipe tune-qwen3-vl; a token holds 2 x 2 patches of 16 pixels.
QWEN3 = Style(name="qwen3-vl", image_tokens=400, edge=(16, 64), quadratic=2.12e-5, patch=0.0604)
SIGLIP = Style(name="llava-siglip", image_tokens=729, edge=(27, 27), quadratic=1.87e-5, patch=0.0204)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Tokens (images expanded), targets, images and patches of every sample, all [samples] int64."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    images: NDArray[np.int64]
    patches: NDArray[np.int64]


def draw_epoch(style: Style, *, samples: int | None = None, seed: int = 0) -> Epoch:
    """Draw the rows of Mantis-Instruct's subsets, or `samples` random ones."""
    from components.data.published.published_sets import published

    generator = np.random.default_rng(seed)
    # The 14 multi-image sets of the 17 published ones are Mantis-Instruct. The others have one image per row.
    rows = [known for known in published().values() if known.images.mean > 1]
    parts = [_draw(known, generator) for known in rows]
    text, images = (np.concatenate(column) for column in zip(*parts, strict=True))
    if samples is not None:
        chosen = generator.choice(len(text), samples, replace=False)
        text, images = text[chosen], images[chosen]
    tokens = np.minimum(text + style.image_tokens * images, CONTEXT)
    return Epoch(
        tokens=tokens, targets=np.maximum(text // 3, 1), images=images, patches=_patches(style, images, generator)
    )


def _draw(known: Any, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    images = np.clip(generator.poisson(known.images.mean, known.rows), 1, known.images.max)
    text = generator.lognormal(math.log(known.text_tokens) - 0.18, 0.6, known.rows).astype(np.int64) + OVERHEAD
    return text, images.astype(np.int64)


def _patches(style: Style, images: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw the patches of each sample: one grid per image, between the shortest and longest side."""
    low, high = style.edge
    sides = generator.integers(low, high + 1, (int(images.sum()), 2))
    ends = np.cumsum(images)
    totals = np.concatenate([[0], np.cumsum(sides.prod(axis=1))])
    return np.asarray(totals[ends] - totals[ends - images], dtype=np.int64)
