"""What an epoch will contain, before anything is computed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.data.mixture.epochs import epoch_of
from components.data.published.published_sets import published, skill_of
from mantis.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SubsetSize:
    """Rows of a subset, and who says so: `prepared`, `at the source` or `published`.

    `images` is the mean per row where it was counted, else None.
    """

    rows: int
    known: str
    images: float | None = None


@dataclass(frozen=True, kw_only=True)
class EstimateLine:
    """One subset of an epoch, or several taken together.

    `drawn` are different rows; `samples` counts each as often as it is seen. `images`, `text_tokens` and `tokens` (text
    and images) are estimates for all samples, None where nothing is known.
    """

    name: str
    skill: str
    rows: int
    drawn: int
    samples: int
    images: float | None
    text_tokens: float | None
    tokens: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class EpochEstimate:
    """The epoch of a recipe: its subsets in the recipe's order, its skills, and the optimizer steps of all epochs."""

    lines: tuple[EstimateLine, ...]
    skills: tuple[EstimateLine, ...]
    total: EstimateLine
    batch_size: int
    epochs: int
    steps: int


def plan_epoch(recipe: Recipe, sizes: Mapping[str, SubsetSize], *, image_tokens: int) -> EpochEstimate:
    """The epoch of `recipe`, whose mixture is written out, over subsets of these sizes.

    `image_tokens` are the language model's positions per image. The published averages stand in for what has not been
    counted. Rows that preparation will drop are not known before, and counted as if they stayed.
    """
    epoch = epoch_of({name: size.rows for name, size in sizes.items()}, recipe.data, seed=recipe.seed)
    lines = [
        _line(recipe, name, sizes[name], drawn=len(np.unique(rows)), samples=len(rows), image_tokens=image_tokens)
        for name, rows in epoch.items()
    ]
    skills = dict.fromkeys(line.skill for line in lines)
    total = _together("all", lines)
    training = recipe.training
    steps = math.ceil(training.epochs * total.samples / training.global_batch_size)
    return EpochEstimate(
        lines=tuple(lines),
        skills=tuple(_together(skill, [line for line in lines if line.skill == skill]) for skill in skills),
        total=total,
        batch_size=training.global_batch_size,
        epochs=training.epochs,
        steps=min(steps, training.max_steps or steps),
    )


def _line(recipe: Recipe, name: str, size: SubsetSize, *, drawn: int, samples: int, image_tokens: int) -> EstimateLine:
    known = published().get(name)
    mean = size.images if size.images is not None else known.images.mean if known else None
    images = None if mean is None else samples * mean
    text = samples * known.text_tokens if known and known.text_tokens is not None else None
    return EstimateLine(
        name=name,
        skill=skill_of(name),
        rows=size.rows,
        drawn=drawn,
        samples=samples,
        images=images,
        text_tokens=text,
        tokens=None if text is None or images is None else text + images * image_tokens,
        note="; ".join([f"rows {size.known}", *_rules(recipe, name, prepared=size.known == "prepared")]),
    )


def _rules(recipe: Recipe, name: str, *, prepared: bool) -> list[str]:
    settings = recipe.data.subset(name)
    rules = []
    if settings.cap is not None:
        rules.append(f"cap {settings.cap:,}")
    if settings.repeat > 1:
        rules.append(f"seen {settings.repeat} times")
    if settings.max_images is not None and not prepared:
        rules.append(f"rows of more than {settings.max_images} images will be dropped")
    return rules


def _together(name: str, lines: Sequence[EstimateLine]) -> EstimateLine:
    """The sums of `lines`; an estimate that one of them lacks is not known of all."""

    def total(field: str) -> float | None:
        values = [getattr(line, field) for line in lines]
        return None if None in values else sum(values)

    return EstimateLine(
        name=name,
        skill=name,
        rows=sum(line.rows for line in lines),
        drawn=sum(line.drawn for line in lines),
        samples=sum(line.samples for line in lines),
        images=total("images"),
        text_tokens=total("text_tokens"),
        tokens=total("tokens"),
    )
