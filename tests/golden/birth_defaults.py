"""The default that each identity field of a recipe was born with. An omitted field means this value, for ever."""

import json
from pathlib import Path
from typing import Any

from mantis.config.identity import birth_default, is_runtime_only
from mantis.config.migrations import first_name
from tests.golden.sections import identity_sections

FILE = Path(__file__).with_name("birth_defaults.json")
COMMAND = "python -m tests.golden.write_birth_defaults"
REQUIRED, DEFAULTS = "required", "defaults"  # the two parts of the file


def birth_defaults() -> dict[str, Any]:
    """{"required": [birth name of a field without default], "defaults": {birth name: birth default}}."""
    required, defaults = [], {}
    for section in identity_sections().values():
        for name, field in section.model_fields.items():
            if is_runtime_only(field):
                continue
            if field.is_required():
                required.append(first_name(section.place(name)))
            else:
                defaults[first_name(section.place(name))] = birth_default(field)
    return {REQUIRED: sorted(required), DEFAULTS: dict(sorted(defaults.items()))}


def changed(known: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """A line for each known field whose birth default differs."""
    lines = [
        f"{name}: {json.dumps(default)} -> {json.dumps(found[DEFAULTS][name])}"
        for name, default in known[DEFAULTS].items()
        if name in found[DEFAULTS] and json.dumps(found[DEFAULTS][name]) != json.dumps(default)
    ]
    lines += [f"{name}: had no default" for name in known[REQUIRED] if name in found[DEFAULTS]]
    return lines + [f"{name}: has no default any more" for name in known[DEFAULTS] if name in found[REQUIRED]]


def merged(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """`known` with the new fields of `found`. Entries of removed fields stay: their names are used up."""
    return {
        REQUIRED: sorted({*known[REQUIRED], *found[REQUIRED]}),
        DEFAULTS: dict(sorted({**found[DEFAULTS], **known[DEFAULTS]}.items())),
    }
