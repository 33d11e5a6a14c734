"""Errors of pydantic as sentences with field, value and remedy."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mantis.config.migrations import present_name
from mantis.errors import did_you_mean

QUOTES = "'\""
MOST_PROBLEMS = 20  # of one error
EVERY_FIELD = "`mantis recipe fields` explains every field."


def explain(error: ValidationError, origin: str) -> str:
    """One sentence with each wrong field of `origin`, its value and the reason."""
    problems = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "the whole"
        if item["loc"][-1:] == ("[key]",):
            named = ".".join(str(part) for part in item["loc"][:-2])
            problems.append(f"{named} names {shortened(item['input'])}: {item['msg']}")
        elif item["type"] == "extra_forbidden":
            problems += _unknown(field, item["input"])
        elif item["type"] == "tuple_type":
            found = shortened(item["input"])
            problems.append(f"{field} = {found} is not a list; write [{found.strip(QUOTES)}]")
        else:
            problems.append(f"{field} = {shortened(item['input'])}: {item['msg'].removeprefix('Value error, ')}")
    more = [f"{len(problems) - MOST_PROBLEMS:,} more problems"] if len(problems) > MOST_PROBLEMS else []
    return f"{origin}: {'; '.join(problems[:MOST_PROBLEMS] + more)}."


def remedy(error: ValidationError, root: type[BaseModel]) -> str:
    """The fields of the section that has an unknown field, the closest name first. `root` is the whole form."""
    unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
    if not unknown:
        return EVERY_FIELD
    section = root
    for part in unknown[0][:-1]:
        field = section.model_fields.get(str(part))
        below = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [kind for kind in below if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not sections:
            return EVERY_FIELD
        section = sections[0]
    close = did_you_mean(str(unknown[0][-1]), section.model_fields)
    return f"{close}Fields here: {', '.join(section.model_fields)}."


def shortened(value: Any) -> str:
    """`repr` of the value, in at most 80 characters."""
    text = repr(value[:81] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _unknown(field: str, value: Any) -> list[str]:
    """The problem of an unknown field or section. In a section with renamed fields, each field has its own entry."""
    leaves = _leaves(field, value)
    if all(present_name(name) == name for name, _ in leaves):
        return [f"{field} = {shortened(value)} is not a field"]
    return [_not_a_field(name, item) for name, item in leaves]


def _leaves(field: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(field, value)]
    return [leaf for name, item in value.items() for leaf in _leaves(f"{field}.{name}", item)]


def _not_a_field(field: str, value: Any) -> str:
    present = present_name(field)
    renamed = f" any more: it is {present} now" if present != field else ""
    return f"{field} = {shortened(value)} is not a field{renamed}"
