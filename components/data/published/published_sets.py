"""The published training sets as data: subsets.yaml."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mantis.config.field_types import Name
from mantis.errors import ConfigError, did_you_mean
from mantis.synthetic import SKILLS

FILE = Path(__file__).with_name("subsets.yaml")
UNKNOWN = "unknown"
Use = Literal["commercial", "redistribution"]
USES: dict[Use, str] = {"commercial": "commercial use", "redistribution": "passing them on"}


class _SubsetData(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SubsetLicence(_SubsetData):
    """On what terms a set is given; `origin` is where that was read, empty where nothing was found."""

    name: str
    terms: str
    forbids: tuple[Use, ...]
    origin: str


class ImageArchives(_SubsetData):
    """Images per row."""

    mean: float
    max: int


class SubsetHub(_SubsetData):
    """Where a set lies on the hub: a folder with `<split>-*.parquet` and its zips, or the `files` that are named."""

    repository: str
    revision: str
    folder: str
    splits: tuple[Literal["train", "val"], ...] = ("train",)
    files: tuple[str, ...] = ()


class PublishedSubset(_SubsetData):
    """One published set; `messages` and `text_tokens` are averages per row, None where nobody publishes them."""

    skill: Name
    rows: Annotated[int, Field(ge=1)]
    images: ImageArchives
    messages: float
    text_tokens: float | None
    hub: SubsetHub
    licence: SubsetLicence


@cache
def published() -> dict[str, PublishedSubset]:
    """Every published set by its name, in the order of the file."""
    raw = yaml.safe_load(FILE.read_text())
    return {name: PublishedSubset.model_validate(fields) for name, fields in raw["subsets"].items()}


def published_subset(name: str) -> PublishedSubset:
    """The set of this name.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    if name not in published():
        raise ConfigError(
            f"{name!r} is no published subset.",
            remedy=f"{did_you_mean(name, published())}Published: {', '.join(published())}.",
        )
    return published()[name]


def skill_of(name: str) -> str:
    """The skill that a subset trains, empty for one that nobody knows; a split (`nlvr2-val`) has its set's."""
    if name in SKILLS:
        return SKILLS[name]
    found = published().get(name) or published().get(name.removesuffix("-val"))
    return found.skill if found else ""


def warnings(names: Iterable[str]) -> list[str]:
    """What a person should know of the terms of these sets before training on them; a line each."""
    known = {name: published()[name].licence for name in names if name in published()}
    lines = []
    for use, words in USES.items():
        against = [f"{name} ({licence.name})" for name, licence in known.items() if use in licence.forbids]
        if against:
            lines.append(f"the terms of these subsets forbid {words}: {', '.join(against)}")
    unclear = [name for name, licence in known.items() if licence.name == UNKNOWN]
    if unclear:
        lines.append(f"no licence is known for: {', '.join(unclear)}; ask their owners before any use but research")
    return lines
