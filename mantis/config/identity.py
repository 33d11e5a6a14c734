"""Which values of a recipe decide a result: the identity that fingerprints and run ids are made of.

A field enters the identity only where its value differs from the default that the field was born with. So a new field
changes no run id and no address. A field keeps the name that it was born with; see migrations.py.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from mantis.config.migrations import first_name
from mantis.hashing import canonical_json

RUNTIME_ONLY: dict[str, Any] = {"runtime_only": True}  # decides how a result is computed, not its content
SECTION: dict[str, Any] = {}  # the birth default of a section: every field of it at its own birth default
BORN_WITH = "born_with"


def born_with(default: Any) -> dict[str, Any]:
    """json_schema_extra of a field whose default was changed: `default`, a JSON value, is the one it was born with."""
    return {BORN_WITH: default}


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    section: ClassVar[str] = ""  # dotted place of the section in a recipe

    def identity(self, *names: str) -> dict[str, Any]:
        """The values that decide a result, by dotted birth name; nested sections included. Of `names` only, if given.

        An optional section that is present has an entry `{}` of its own, beside the entries of its fields.

        Raises:
            TypeError: `names` holds no field, or a section stands at another place than its class says.
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


def birth_default(field: FieldInfo) -> Any:
    """The default that the field was born with, as JSON has it. Only for a field that has one.

    Raises:
        TypeError: the default is a section that sets fields; a change of their own defaults would be lost.
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
