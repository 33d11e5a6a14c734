"""Named mixtures (mixtures.yaml), and the sampling of rows: which rows an epoch sees, and how often.

The arithmetic follows TIGER-AI-Lab/Mantis, mantis/train/data.py, DatasetCollection and ChatDataset.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from components.data.published.published_sets import published, skill_of
from mantis.artifacts.source_names import GENERATED
from mantis.config.bounded_yaml import parse_yaml
from mantis.config.data_settings import DataSettings, Sampling, SubsetSettings
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, did_you_mean
from mantis.synthetic import SKILLS

FILE = Path(__file__).with_name("mixtures.yaml")
OVERSAMPLING = 1.1  # the release's factor on every subset's share
SHUFFLE_SEED = 42  # of `shuffled`, whatever the recipe's seed: ChatDataset.__init__ of the official code
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """Where the rows of a dataset stood in their source: `numbers` from 0, ascending, of `total` rows there.

    Rows that `max_images` leaves out do not count. The official code filters them before it shuffles.
    """

    numbers: Rows
    total: int

    @classmethod
    def all_of(cls, rows: int) -> "SourceRows":
        """A source that keeps all its rows."""
        return cls(numbers=np.arange(rows, dtype=np.int64), total=rows)


class Mixture(BaseModel):
    """A named mixture. `origin` names the published file that it was copied from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    origin: str
    subsets: tuple[SubsetSettings, ...]


@cache
def mixtures() -> dict[str, Mixture]:
    """Every named mixture of mixtures.yaml, by name."""
    raw: dict[str, dict[str, Any]] = parse_yaml(FILE.read_text())
    return {
        name: Mixture.model_validate(
            {**fields, "subsets": [{"name": subset, **given} for subset, given in fields["subsets"].items()]}
        )
        for name, fields in raw.items()
    }


def written_out(recipe: Recipe) -> Recipe:
    """Write the subsets of the recipe's mixture into `data.subsets`, restricted to `data.skills`.

    A recipe that was written out already stays as it is. So a stored recipe keeps its meaning when mixtures.yaml
    changes.

    Raises:
        ConfigError: the mixture or a skill does not exist, or `data.skills` is set and a subset has no known skill.
    """
    data = recipe.data
    if data.mixture is None and not data.skills:
        return recipe
    return recipe.model_copy(update={"data": data.model_copy(update={"subsets": _of_skills(data, _named(data))})})


def _named(data: DataSettings) -> tuple[SubsetSettings, ...]:
    if data.subsets:
        return data.subsets
    if data.mixture is None:
        generated = SKILLS if data.source == GENERATED else ()
        return tuple(SubsetSettings(name=name) for name in generated)
    if data.mixture not in mixtures():
        raise ConfigError(
            f"data.mixture = {data.mixture!r} is no mixture.",
            remedy=f"{did_you_mean(data.mixture, mixtures())}Choose one of {', '.join(mixtures())}.",
        )
    return mixtures()[data.mixture].subsets


def _of_skills(data: DataSettings, subsets: tuple[SubsetSettings, ...]) -> tuple[SubsetSettings, ...]:
    if not data.skills:
        return subsets
    unskilled = [subset.name for subset in subsets if not skill_of(subset.name)]
    if unskilled or not subsets:
        raise ConfigError(
            f"data.skills = {list(data.skills)} needs subsets with a known skill. "
            f"{', '.join(unskilled) or 'An empty data.subsets'} has none.",
            remedy="Remove data.skills, or set data.mixture.",
        )
    there = {skill_of(subset.name) for subset in subsets}
    missing = [skill for skill in data.skills if skill not in there]
    if missing:
        raise ConfigError(
            f"data.skills names {', '.join(missing)}, but no subset of the mixture has this skill.",
            remedy=f"Choose from the mixture's skills: {', '.join(_skills_in_order(there))}.",
        )
    return tuple(subset for subset in subsets if skill_of(subset.name) in data.skills)


def _skills_in_order(skills: set[str]) -> list[str]:
    known = dict.fromkeys([*(subset.skill for subset in published().values()), *SKILLS.values()])
    return [skill for skill in known if skill in skills]


def samples_per_epoch(lengths: Mapping[str, int], sampling: Sampling) -> dict[str, int]:
    """Number of samples that an epoch draws from each subset. `lengths` counts rows after cap and repeat.

    - `none`: an epoch draws n_i samples from subset i of n_i rows.
    - `sqrt`: an epoch draws int(N min(1.1 sqrt(n_i) / sum_j sqrt(n_j), 1)) samples, where N is the sum of all n_j.
    """
    if sampling == "none":
        return dict(lengths)
    total, roots = sum(lengths.values()), sum(math.sqrt(length) for length in lengths.values())
    return {
        name: int(total * min(math.sqrt(length) / roots * OVERSAMPLING, 1.0)) if length else 0
        for name, length in lengths.items()
    }


def capped(rows: int, settings: SubsetSettings) -> int:
    """Number of rows of a subset that a mixture draws from: `rows`, or the cap if that is lower."""
    return rows if settings.cap is None else min(rows, settings.cap)


def epoch_of(sources: Mapping[str, SourceRows], data: DataSettings, *, seed: int) -> dict[str, Rows]:
    """Positions in `numbers` of the rows that an epoch visits, by subset.

    An epoch makes whole passes over a subset's rows, then a partial pass. Each pass is in the order of rows. `order` of
    the subset decides the rows of a cap and of the partial pass.
    """
    settings = {name: data.subset(name) for name in sources}
    lengths = {
        name: capped(len(source.numbers), settings[name]) * settings[name].repeat for name, source in sources.items()
    }
    samples = samples_per_epoch(lengths, data.sampling)
    return {name: _visits(source, settings[name], samples[name], seed) for name, source in sources.items()}


def _visits(source: SourceRows, settings: SubsetSettings, samples: int, seed: int) -> Rows:
    size = capped(len(source.numbers), settings)
    if not size:
        return np.empty(0, np.int64)
    passes, rest = divmod(samples, size)
    if settings.order == "drawn":
        pool, part = _drawn(len(source.numbers), size, rest, np.random.default_rng(_seeds(settings, seed)))
    else:
        order = _order(source, shuffled=settings.order == "shuffled")
        pool, part = np.sort(order[:size]), np.sort(order[:rest])
    return np.concatenate([*([pool] * passes), part])


def _seeds(settings: SubsetSettings, seed: int) -> list[int]:
    return [seed, zlib.crc32(settings.name.encode())]


def _drawn(rows: int, size: int, rest: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """`size` of the rows, and `rest` of those."""
    pool = np.arange(rows, dtype=np.int64)
    if size < rows:
        pool = np.sort(generator.choice(pool, size, replace=False))
    return pool, np.sort(generator.choice(pool, rest, replace=False))


def _order(source: SourceRows, *, shuffled: bool) -> Rows:
    """The positions in `numbers` as the official code orders the rows. A row that is not kept leaves its place out."""
    if not shuffled:
        return np.arange(len(source.numbers), dtype=np.int64)
    # This is the permutation of datasets.Dataset.shuffle(seed=42).
    permutation = np.random.default_rng(SHUFFLE_SEED).permutation(source.total)
    position = np.full(source.total, -1, dtype=np.int64)
    position[source.numbers] = np.arange(len(source.numbers))
    found = position[permutation]
    return found[found >= 0]
