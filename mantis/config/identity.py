"""The identity of a recipe: the values that decide a result. Fingerprints and run ids are hashes of it.

A field enters the identity only if its value differs from its birth default, the first default that it had. So a new
field changes no run id and no address. A renamed field enters under its first name (migrations.py).
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from mantis.config.migrations import first_name
from mantis.hashing import canonical_json

RUNTIME_ONLY: dict[str, Any] = {"runtime_only": True}  # decides how a result is computed, not its content
SECTION: dict[str, Any] = {}  # the birth default of a section: every field of it at its own birth default
BORN_WITH = "born_with"


def born_with(default: Any) -> dict[str, Any]:
    """json_schema_extra of a field with a changed default. `default` is its birth default, a JSON value."""
    return {BORN_WITH: default}


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: ClassVar[str] = ""  # dotted place of the section in a recipe

    def identity(self, *names: str) -> dict[str, Any]:
        """The values that decide a result, by dotted first name, with nested sections. `names` limits the fields.

        An optional section that is present has its own entry `{}`, beside the entries of its fields.

        Raises:
            TypeError: a name is no field, or a section is at another place than its class declares.
        """
        if unknown := set(names) - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        identity: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if not is_runtime_only(field) and (not names or name in names):
                identity |= _of_field(self.place(name), field, getattr(self, name))
        return identity

    @classmethod
    def place(cls, name: str) -> str:
        """Dotted name of the field `name` in a recipe."""
        return f"{cls.section}.{name}" if cls.section else name


def is_runtime_only(field: FieldInfo) -> bool:
    """Whether the field is left out of every identity."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("runtime_only"))


def runtime_only_fields(settings: Settings) -> Iterator[str]:
    """The dotted names of the fields of a recipe, or of its section, that decide no result."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if is_runtime_only(field):
            yield settings.place(name)
        elif isinstance(value, Settings):
            yield from runtime_only_fields(value)


def birth_default(field: FieldInfo) -> Any:
    """The birth default of a field that has a default, as a JSON value.

    Raises:
        TypeError: the default is a section that sets fields. Then a change of their own defaults would be lost.
    """
    extra = field.json_schema_extra
    if isinstance(extra, dict) and BORN_WITH in extra:
        return extra[BORN_WITH]
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Settings):
        if default.model_fields_set:
            raise TypeError(f"the default {default!r} sets fields: give the fields of the section these defaults")
        return SECTION
    return _plain(default)


def _of_field(place: str, field: FieldInfo, value: Any) -> dict[str, Any]:
    plain = _plain(value)
    if isinstance(value, Settings):
        if value.section != place:
            raise TypeError(f"{type(value).__name__} says section = {value.section!r} and stands at {place!r}")
        entry = SECTION
    else:
        entry = plain
    there = {} if not field.is_required() and _same(entry, birth_default(field)) else {first_name(place): entry}
    return there | plain if isinstance(value, Settings) else there


def _same(value: Any, other: Any) -> bool:
    return canonical_json(value) == canonical_json(other)  # 1, 1.0 and True are equal in Python


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.identity()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
