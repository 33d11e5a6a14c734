"""The published weights as data: catalog.yaml of every family's folder, and the licences that they share."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mantis.config.bounded_yaml import parse_yaml
from mantis.config.field_types import Name
from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, did_you_mean
from mantis.models.registry import family_files

LICENCES = Path(__file__).with_name("licences.yaml")
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
    """Published weights, whole models as well as towers and projectors."""

    name: Name
    repository: str  # on the hub
    revision: str  # a commit where one could be confirmed; a branch is resolved when the weights are fetched
    families: tuple[Name, ...]
    role: Literal["base", "vision", "projector"]
    gated: bool
    licence: WeightsLicence
    origin: str  # where the licence was read


@cache
def published_bases() -> dict[str, PublishedWeights]:
    """The published weights of all families by their names.

    Raises:
        ConfigError: two families publish different weights under one name.
    """
    shared: dict[str, Any] = parse_yaml(LICENCES.read_text())
    found: dict[str, PublishedWeights] = {}
    for file in family_files("catalog.yaml"):
        raw: dict[str, Any] = parse_yaml(file.read_text())
        licences = shared | raw.get("licences", {})
        for name, fields in raw["bases"].items():
            base = PublishedWeights.model_validate({"name": name, **fields, "licence": licences[fields["licence"]]})
            if found.setdefault(name, base) != base:
                raise ConfigError(
                    f"{file} has other weights named {name!r} than another family.", remedy="Rename them."
                )
    return found


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
