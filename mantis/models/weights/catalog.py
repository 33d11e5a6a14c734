"""The published weights as data: bases.yaml."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from mantis.config.recipe import ModelSettings, Name
from mantis.errors import ConfigError, did_you_mean

FILE = Path(__file__).with_name("catalog.yaml")
FIELDS = ("base", "vision", "projector")  # of ModelSettings, which may name published weights


class _CatalogData(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsLicence(_CatalogData):
    """What a licence asks of models that are made from the weights; `identifier` is the hub's word for it."""

    name: str
    identifier: str
    url: str
    forbids: tuple[Literal["commercial"], ...]
    asks: tuple[str, ...]
    built_with: str = ""
    name_prefix: str = ""
    notice: str = ""


class PublishedWeights(_CatalogData):
    """Published weights; `revision` is a commit, or a branch that is resolved when they are fetched."""

    name: Name
    repository: str
    revision: str
    families: tuple[Name, ...]
    role: Literal["base", "vision", "projector"]
    gated: bool
    licence: WeightsLicence
    origin: str  # where the licence was read


@cache
def published_bases() -> dict[str, PublishedWeights]:
    """Every one by its name, in the order of the file."""
    raw: dict[str, Any] = yaml.safe_load(FILE.read_text())
    licences = {name: WeightsLicence.model_validate(fields) for name, fields in raw["licences"].items()}
    return {
        name: PublishedWeights.model_validate({"name": name, **fields, "licence": licences[fields["licence"]]})
        for name, fields in raw["bases"].items()
    }


def published_base(name: str) -> PublishedWeights:
    """The weights of this name.

    Raises:
        ConfigError: there are none; names those that exist.
    """
    if name not in published_bases():
        known = published_bases()
        raise ConfigError(
            f"{name!r} is no published model.", remedy=f"{did_you_mean(name, known)}Published: {', '.join(known)}."
        )
    return published_bases()[name]


def named_bases(settings: ModelSettings) -> dict[str, PublishedWeights]:
    """The published weights that the settings name, by the field that names them."""
    values = {field: getattr(settings, field) for field in FIELDS}
    return {field: published_bases()[value] for field, value in values.items() if value in published_bases()}


def warnings(bases: Iterable[PublishedWeights]) -> list[str]:
    """What a person should know of their terms before training on them; a line each."""
    found = {base.name: base.licence for base in bases if "commercial" in base.licence.forbids}
    return [
        f"the terms of {name} ({licence.name}) forbid commercial use of it and of models made from it"
        for name, licence in found.items()
    ]
