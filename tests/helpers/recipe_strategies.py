"""Hypothesis strategies for recipes, derived from the annotations and bounds of their fields."""

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from hypothesis import assume
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mantis.config.identity import Settings
from mantis.config.recipe import Recipe

Path = tuple[str | int, ...]
TEXT = st.text("abAB/:.-1", max_size=6)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Valid recipes; each field is left at its default or drawn."""
    try:
        return Recipe.model_validate(draw(_section(Recipe)))
    except ValidationError:
        assume(False)
        raise


def value_of(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Values that the field takes, its default among them."""
    drawn = _of(field.annotation, field.metadata)
    return drawn if field.is_required() else st.one_of(st.just(field.default), drawn)


def fields_of(section: Settings, path: Path = ()) -> list[tuple[Path, FieldInfo]]:
    """Every field that is there, in nested sections and in the items of lists, with its path."""
    found: list[tuple[Path, FieldInfo]] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        found.append(((*path, name), field))
        if isinstance(value, Settings):
            found += fields_of(value, (*path, name))
        elif isinstance(value, tuple):
            for at, item in enumerate(value):
                found += fields_of(item, (*path, name, at)) if isinstance(item, Settings) else []
    return found


def with_value(recipe: Recipe, path: Path, value: Any) -> Recipe:
    """The recipe with another value at `path`, validated."""
    raw = recipe.model_dump(mode="json")
    node: Any = raw
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return Recipe.model_validate(raw)


@cache
def _section(section: type[Settings]) -> st.SearchStrategy[dict[str, Any]]:
    required = {name: value_of(field) for name, field in section.model_fields.items() if field.is_required()}
    optional = {name: value_of(field) for name, field in section.model_fields.items() if not field.is_required()}
    return st.fixed_dictionaries(required, optional=optional)


def _of(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(arguments[0], [*metadata, *arguments[1:]])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*(_of(argument, metadata) for argument in arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(_of(arguments[0], []), max_size=3)
        return st.tuples(*(_of(argument, []) for argument in arguments))
    if origin is dict:
        return st.dictionaries(_of(arguments[0], []), _of(arguments[1], []), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return _section(annotation)
    return _plain(annotation, metadata)


def _plain(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    if annotation is Any:
        return st.one_of(TEXT, st.integers(0, 3), st.lists(TEXT, max_size=2))
    if annotation is NoneType:
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is str:
        patterns = [pattern for item in metadata if (pattern := _pattern(item))]
        return st.from_regex(patterns[0].removesuffix("$") + r"\Z") if patterns else TEXT
    least = next((float(str(item.ge)) for item in metadata if isinstance(item, annotated_types.Ge)), None)
    above = next((float(str(item.gt)) for item in metadata if isinstance(item, annotated_types.Gt)), None)
    most = next((float(str(item.le)) for item in metadata if isinstance(item, annotated_types.Le)), None)
    below = next((float(str(item.lt)) for item in metadata if isinstance(item, annotated_types.Lt)), None)
    if annotation is int:
        low = (
            -3
            if least is None and above is None
            else int(least if least is not None else above or 0) + (above is not None)
        )
        return st.integers(low, low + 4)
    assert annotation is float, f"no strategy for {annotation}"
    floor, ceiling = (
        next(x for x in (least, above, 0.0) if x is not None),
        next(x for x in (most, below, 9.0) if x is not None),
    )
    return st.floats(
        floor, ceiling, exclude_min=above is not None, exclude_max=below is not None, allow_subnormal=False
    )


def _pattern(item: Any) -> str | None:
    if isinstance(item, FieldInfo):
        return next((found for inner in item.metadata if (found := _pattern(inner))), None)
    pattern = getattr(item, "pattern", None)
    return pattern if isinstance(pattern, str) else None
