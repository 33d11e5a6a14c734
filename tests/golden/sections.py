"""The sections of a recipe and their fields, found by walking the classes."""

from collections.abc import Iterator
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import create_model

from mantis.config.identity import Settings, is_runtime_only
from mantis.config.recipe import Recipe


def sections() -> dict[str, type[Settings]]:
    """Dotted place -> class of every section, the recipe itself at ""."""
    return {"": Recipe, **dict(_below(Recipe, "", runtime_only=True))}


def identity_sections() -> dict[str, type[Settings]]:
    """The sections without those that are runtime only as a whole."""
    return {"": Recipe, **dict(_below(Recipe, "", runtime_only=False))}


def section_in(annotation: Any) -> type[Settings] | None:
    """The section class that a field's annotation holds; None for a plain value."""
    found = _classes_in(annotation)
    assert len(found) <= 1, f"{annotation} holds several sections: their identities could not be told apart"
    return found.pop() if found else None


def with_unused_field(section: type[Settings], at: type[Settings] = Recipe) -> type[Settings]:
    """The class `at` as it were if its section `section` had one more field."""
    if at is section:
        return create_model(at.__name__, __base__=at, unused=(int, 7))
    fields: dict[str, Any] = {}
    for name, field in at.model_fields.items():
        inner = section_in(field.annotation)
        wider = with_unused_field(section, inner) if inner else inner
        if inner is not None and wider is not None and wider is not inner:
            default = wider() if isinstance(field.default, Settings) else field.default
            fields[name] = (_replaced(field.annotation, inner, wider), default)
    return create_model(at.__name__, __base__=at, **fields) if fields else at


def _below(section: type[Settings], place: str, *, runtime_only: bool) -> Iterator[tuple[str, type[Settings]]]:
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner and (runtime_only or not is_runtime_only(field)):
            dotted = f"{place}.{name}" if place else name
            yield dotted, inner
            yield from _below(inner, dotted, runtime_only=runtime_only)


def _classes_in(annotation: Any) -> set[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return {annotation}
    return {found for argument in get_args(annotation) for found in _classes_in(argument)}


def _replaced(annotation: Any, old: type, new: type) -> Any:
    if annotation is old:
        return new
    origin, arguments = get_origin(annotation), get_args(annotation)
    if not arguments or origin is Annotated:
        return annotation
    changed = tuple(_replaced(argument, old, new) for argument in arguments)
    return reduce(or_, changed) if origin in (Union, UnionType) else origin[changed]
