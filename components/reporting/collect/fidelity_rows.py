"""The known differences from the official system (fidelity.yaml), and those that apply to a recipe."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mantis.config.bounded_yaml import parse_yaml
from mantis.config.recipe import Recipe
from mantis.models.weights.catalog import named_bases

FILE = Path(__file__).with_name("fidelity.yaml")
Values = Mapping[str, tuple[str | int | bool, ...]]


class FidelityRow(BaseModel):
    """One difference. fidelity.yaml explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str = Field(min_length=1)
    official: str = Field(min_length=1)
    here: str = Field(min_length=1)
    why: str = Field(min_length=1)
    size: str = Field(min_length=1)
    setting: str = ""
    where: Values = {}
    unless: Values = {}

    def applies(self, fields: Mapping[str, Any]) -> bool:
        """Whether a recipe with these fields, by dotted name, has the difference."""
        removed = bool(self.unless) and _all_have(fields, self.unless)
        return _all_have(fields, self.where) and not removed


@cache
def fidelity() -> Mapping[str, Sequence[FidelityRow]]:
    """All differences, by section: data, models, evaluation."""
    raw: dict[str, list[dict[str, Any]]] = parse_yaml(FILE.read_text())
    return {section: tuple(map(FidelityRow.model_validate, rows)) for section, rows in raw.items()}


def differences_of(recipe: Recipe) -> tuple[FidelityRow, ...]:
    """The differences of a recipe that reproduces a published model; empty for any other recipe.

    Such a recipe has published weights and a published mixture.
    """
    if recipe.data.mixture is None or not named_bases(recipe.model):
        return ()
    fields = _by_dotted_name(recipe.model_dump(mode="json"))
    return tuple(row for rows in fidelity().values() for row in rows if row.applies(fields))


def _all_have(fields: Mapping[str, Any], values: Values) -> bool:
    """Whether each named field has one of its values. A field that is not there has none."""
    return all(name in fields and fields[name] in allowed for name, allowed in values.items())


def _by_dotted_name(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            found |= _by_dotted_name(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
