"""Every model family by its name.

This project's families are the folders of mantis/models/families/: each sets a `FamilySpec` in its `__init__.py`. Any
other installed package offers some by entry points of the group `mantis.families`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from mantis.config.recipe import Recipe
from mantis.config.training_settings import Part
from mantis.errors import ConfigError, did_you_mean
from mantis.models.family_spec import FamilySpec

if TYPE_CHECKING:
    from mantis.models.family import Family

GROUP = "mantis.families"
FOLDERS = "mantis.models.families"


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
    if name in _own_specs():
        return _own_specs()[name]
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
    """Check a family's name without importing its code.

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
    return tuple(sorted([*_own_specs(), *_entry_points()]))


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
def _own_specs() -> Mapping[str, FamilySpec]:
    """The descriptions that the folders of this project set, by name."""
    parent = import_module(FOLDERS)
    folders = [import_module(f"{FOLDERS}.{folder.name}") for folder in pkgutil.iter_modules(parent.__path__)]
    return {
        value.name: value
        for folder in folders
        for value in vars(folder).values()
        if isinstance(value, FamilySpec) and value.package == folder.__name__  # not one that it imports
    }


@cache
def _entry_points() -> Mapping[str, EntryPoint]:
    """The entry points of other installed packages, by name.

    Raises:
        ConfigError: two packages offer a family of the same name.
    """
    offered, found = {spec.name: spec.package for spec in _own_specs().values()}, dict[str, EntryPoint]()
    for point in entry_points(group=GROUP):
        if point.value.startswith(f"{FOLDERS}."):
            continue  # an older installation of this project names its folders, which may be gone
        known = offered.setdefault(point.name, point.value)
        if known != point.value:
            raise ConfigError(
                f"Two packages offer the model family {point.name!r}: {known} and {point.value}.",
                remedy="Uninstall one of them.",
            )
        found[point.name] = point
    return found
