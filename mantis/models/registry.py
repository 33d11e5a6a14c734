"""Every model family by its name, found by the entry points `mantis.families`.

An entry point names a `FamilySpec`. An installed package of anyone may offer some. Those of this project stand in
pyproject.toml. A source checkout reads them there, since the metadata of its installation may be older.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

import mantis
from mantis.config.recipe import Recipe
from mantis.config.training_settings import Part
from mantis.errors import ConfigError, did_you_mean
from mantis.models.family_spec import FamilySpec

if TYPE_CHECKING:
    from mantis.models.family import Family

GROUP = "mantis.families"
PYPROJECT = Path(mantis.__file__).parents[1] / "pyproject.toml"  # absent where the project is installed as a wheel


@cache
def family(name: str) -> Family:
    """The family of this name. Its code is imported here: transformers takes seconds.

    Raises:
        ConfigError: the family does not exist; names those that do.
    """
    return family_spec(name).load()


@cache
def family_spec(name: str) -> FamilySpec:
    """The description of the family of this name.

    Raises:
        ConfigError: the family does not exist, or its package cannot be imported.
    """
    check_family(name)
    point = _entry_points()[name]
    try:
        spec = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The model family {name!r} cannot be imported from {point.value}: {error}.",
            remedy="Repair or uninstall the package that offers it.",
        ) from error
    if not isinstance(spec, FamilySpec) or spec.name != name:
        raise ConfigError(
            f"The entry point {name!r} of {GROUP} names {point.value}, which is no FamilySpec with that name.",
            remedy="Give the entry point the name of its FamilySpec.",
        )
    return spec


def check_family(name: str) -> None:
    """Check a family's name without importing anything of the family.

    Raises:
        ConfigError: the family does not exist; names those that do.
    """
    if name not in family_names():
        raise ConfigError(
            f"model.family = {name!r} is not a model family.",
            remedy=f"{did_you_mean(name, family_names())}Families: {', '.join(family_names())}.",
        )


def check_parts(recipe: Recipe) -> None:
    """Check that the parts with settings of their own are parts of the recipe's family.

    `training.train` may name other parts: one recipe then trains whatever a family has of them.

    Raises:
        ConfigError: the family has no such part; names those that it has.
    """
    family, training = recipe.model.family, recipe.training
    known = family_spec(family).parts
    fields: dict[str, tuple[Part, ...]] = {"training.parts": tuple(training.parts)}
    if training.adapter:
        fields["training.adapter.whole"] = training.adapter.whole
        fields["training.adapter.quantized"] = training.adapter.quantized
    for field, parts in fields.items():
        if missing := [part for part in parts if part not in known]:
            raise ConfigError(
                f"{field} names {missing[0]}, but a model of family {family} has no such part.",
                remedy=f"Remove {missing[0]} from {field}. Parts of {family}: {', '.join(known)}.",
            )


def check_image(recipe: Recipe) -> None:
    """Check that a recipe bounds the pixels of images only where its family has such a bound.

    Raises:
        ConfigError: the family makes its images of other sizes.
    """
    family, image = recipe.model.family, recipe.model.image
    for field in ("max_pixels", "min_pixels", "max_pixels_per_sample"):
        value = getattr(image, field)
        if value is not None and field not in family_spec(family).caps:
            raise ConfigError(
                f"model.image.{field} = {value}, but {family} has no such bound.",
                remedy=f"Remove model.image.{field}; model.image.size decides the images of {family}.",
            )


def family_names() -> tuple[str, ...]:
    """All families in alphabetical order."""
    return tuple(_entry_points())


def family_specs() -> tuple[FamilySpec, ...]:
    """The descriptions of all families in alphabetical order of their names.

    Raises:
        ConfigError: a family's package cannot be imported.
    """
    return tuple(map(family_spec, family_names()))


def family_files(name: str) -> list[Traversable]:
    """The data files of this name from all family folders that hold one. Several families may share a folder."""
    folders = {spec.package: spec.file(name) for spec in family_specs()}
    return [file for file in folders.values() if file.is_file()]


@cache
def _entry_points() -> Mapping[str, EntryPoint]:
    """The entry points of installed packages and of this checkout, by name.

    Raises:
        ConfigError: two packages offer a family of the same name.
    """
    own = _own_entry_points()
    found = dict(own)
    for point in entry_points(group=GROUP):
        stale = own and point.value.startswith("mantis.models.families.")
        known = found.get(point.name)
        if stale or (known and known.value == point.value):
            continue
        if known:
            raise ConfigError(
                f"Two packages offer the model family {point.name!r}: {known.value} and {point.value}.",
                remedy="Uninstall one of them.",
            )
        found[point.name] = point
    return dict(sorted(found.items()))


def _own_entry_points() -> dict[str, EntryPoint]:
    """Those of the pyproject.toml beside this package; empty where there is none."""
    if not PYPROJECT.is_file():
        return {}
    declared = tomllib.loads(PYPROJECT.read_text())["project"].get("entry-points", {}).get(GROUP, {})
    return {name: EntryPoint(name=name, value=value, group=GROUP) for name, value in declared.items()}
