"""Every field of a recipe with its type, default, bounds and description, read from the pydantic classes."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mantis.config.identity import is_runtime_only

BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
LENGTHS = {"min_length": "at least {} long", "max_length": "at most {} long"}


@dataclass(frozen=True, kw_only=True)
class RecipeField:
    """One field. `decides_results` is False for a field that is left out of every fingerprint."""

    path: str
    type: str
    default: Any
    required: bool
    bounds: str
    description: str
    decides_results: bool

    @property
    def shown_default(self) -> str:
        """Return the default as YAML writes it."""
        if self.required:
            return "required"
        return _as_yaml(self.default)


def fields_of(section: type[BaseModel], prefix: str = "", decides: bool = True) -> Iterator[RecipeField]:
    """Return the fields of `section` and of the sections in it, in the order of the classes.

    A field of a list of sections has `[]` in its path, and one of a mapping to sections `<name>`.
    """
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        its = decides and not is_runtime_only(field)
        inner = _section_in(field.annotation)
        if inner is None or not _always_a_section(field.annotation):
            yield _described(path, field, its)
        if inner is not None:
            below = "[]" if _is_list(field.annotation) else ".<name>" if get_origin(field.annotation) is dict else ""
            yield from fields_of(inner, f"{path}{below}.", its)


def _described(path: str, field: FieldInfo, decides: bool) -> RecipeField:
    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True)
    return RecipeField(
        path=path,
        type=_type_name(field.annotation),
        default=_plain(default) if default is not PydanticUndefined else None,
        required=required,
        bounds=", ".join([*_bounds(field.metadata), *_inner_bounds(field.annotation)]),
        description=" ".join((field.description or "").split()),
        decides_results=decides,
    )


def _bounds(metadata: list[Any]) -> list[str]:
    """Return the bounds in a field's metadata: numbers, lengths, patterns."""
    found = []
    for item in metadata:
        for name, words in (BOUNDS | LENGTHS).items():
            value = getattr(item, name, None)
            if value is not None:
                found.append(words.format(f"{value:,}" if isinstance(value, int) else value))
        pattern = getattr(item, "pattern", None)
        if pattern:
            found.append(f"matches `{pattern}`")
        if isinstance(item, FieldInfo):
            found += _bounds(item.metadata)
    return found


def _inner_bounds(annotation: Any) -> list[str]:
    """Return the bounds of an annotated part of a type, e.g. of the names in a list."""
    found = _bounds(list(annotation.__metadata__)) if get_origin(annotation) is Annotated else []
    for part in get_args(annotation):
        if get_origin(annotation) is not Literal and part is not annotation:
            found += _inner_bounds(part)
    return list(dict.fromkeys(found))


def _type_name(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is Literal:
        return " or ".join(_as_yaml(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in parts)
    if origin in (tuple, list):
        inner = [_type_name(part) for part in parts if part is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in parts or origin is list else f"[{', '.join(inner)}]"
    if origin is dict:
        return f"mapping of {_type_name(parts[0])} to {_type_name(parts[1])}"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section class that a type is, contains, or allows; None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is Literal:
        return None
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)


def _always_a_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (tuple, list)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _as_yaml(value: Any) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value if value else '""'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_as_yaml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_as_yaml(item) for item in value) + "]"
