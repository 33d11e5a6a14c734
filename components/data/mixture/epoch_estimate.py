"""Estimates an epoch before any data is prepared: rows, samples, images and tokens per subset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.data.mixture.epochs import SourceRows, epoch_of
from components.data.published.published_sets import published, skill_of
from mantis.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SubsetSize:
    """Number of rows of a subset.

    `known` names where the number comes from: `prepared`, `to be generated`, `at the source` or `published`.
    `images` is the mean number of images per row; None means unknown.
    """

    rows: int
    known: str
    images: float | None = None


@dataclass(frozen=True, kw_only=True)
class EstimateLine:
    """One subset of an epoch, or the sum of several.

    `drawn` counts different rows. `samples` counts a row once per visit in the epoch. `images`, `text_tokens` and
    `tokens` (text and images) are estimated sums over all samples; None means unknown.
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
    """The epoch of a recipe: a line per subset in the recipe's order, a line per skill, and a total.

    `steps` counts the optimizer steps of all epochs.
    """

    lines: tuple[EstimateLine, ...]
    skills: tuple[EstimateLine, ...]
    total: EstimateLine
    batch_size: int
    epochs: int
    steps: int


def plan_epoch(recipe: Recipe, sizes: Mapping[str, SubsetSize], *, image_tokens: int) -> EpochEstimate:
    """Estimate the epoch of `recipe` over subsets of these sizes. The recipe must name every subset (`written_out`).

    `image_tokens` is the number of language model positions per image. Published averages replace counts that are not
    known. Rows that preparation will drop still count, since they are not known yet. Here `data.holdout` takes the same
    share of each subset; the ids of the rows decide the true share.
    """
    rows_of = {name: size.rows for name, size in sizes.items() if not recipe.data.subset(name).held_out}
    held_out = min(1.0, recipe.data.holdout / max(1, sum(rows_of.values())))
    kept = {name: SourceRows.all_of(rows - round(rows * held_out)) for name, rows in rows_of.items()}
    epoch = epoch_of(kept, recipe.data, seed=recipe.seed)
    lines = [
        _line(recipe, name, sizes[name], drawn=len(np.unique(rows)), samples=len(rows), image_tokens=image_tokens)
        for name, rows in epoch.items()
    ]
    skills = dict.fromkeys(line.skill for line in lines)
    total = _together("all", lines)
    training = recipe.training
    return EpochEstimate(
        lines=tuple(lines),
        skills=tuple(_together(skill, [line for line in lines if line.skill == skill]) for skill in skills),
        total=total,
        batch_size=training.global_batch_size,
        epochs=training.epochs,
        steps=training.steps_of(total.samples),
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
    """Sum up `lines`. A sum is None if one of the lines lacks the estimate."""

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
