"""Loads the catalog of published training sets, subsets.yaml."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from mantis.config.bounded_yaml import parse_yaml
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
    """Licence of a set. `origin` is the page that states it; empty if no page was found."""

    name: str
    terms: str
    forbids: tuple[Use, ...]
    origin: str


class ImageArchives(_SubsetData):
    """Images per row: mean and maximum."""

    mean: float
    max: int


class SubsetHub(_SubsetData):
    """Place of a set on the hub: a folder with `<split>-*.parquet` and its zips, or the named `files` alone."""

    repository: str
    revision: str
    folder: str
    splits: tuple[Literal["train", "val"], ...] = ("train",)
    files: tuple[str, ...] = ()


class PublishedSubset(_SubsetData):
    """One published set. `messages` and `text_tokens` are averages per row; None means not published."""

    skill: Name
    rows: Annotated[int, Field(ge=1)]
    images: ImageArchives
    messages: float
    text_tokens: float | None
    hub: SubsetHub
    licence: SubsetLicence


@cache
def published() -> dict[str, PublishedSubset]:
    """Every published set by name, in the order of the file."""
    raw = parse_yaml(FILE.read_text())
    return {name: PublishedSubset.model_validate(fields) for name, fields in raw["subsets"].items()}


def published_subset(name: str) -> PublishedSubset:
    """The published set of this name.

    Raises:
        ConfigError: no set has this name. The error lists all names.
    """
    if name not in published():
        raise ConfigError(
            f"{name!r} is no published subset.",
            remedy=f"{did_you_mean(name, published())}Choose one of {', '.join(published())}.",
        )
    return published()[name]


def skill_of(name: str) -> str:
    """The skill that a subset trains; empty if unknown. A split such as `nlvr2-val` has the skill of its set."""
    if name in SKILLS:
        return SKILLS[name]
    found = published().get(name) or published().get(name.removesuffix("-val"))
    return found.skill if found else ""


def warnings(names: Iterable[str]) -> list[str]:
    """Warnings about the licences of these sets, one line each. Print them before training."""
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
