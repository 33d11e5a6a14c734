"""The form of a pipeline on KFP's page: a field for each thing that people change, and one text with all other changes.

KFP shows every field of the form on a run's page, and sets them side by side for two runs. A mapping would be shown as
`[object Object]`, so each field is a text. Preflight checks the values by the recipe's own rules.
"""

import json
import logging
from collections.abc import Collection, Mapping

import yaml

from mantis.config.bounded_yaml import parse_yaml
from mantis.config.overrides import split_outside
from mantis.errors import ConfigError
from mantis.runs.kfp_form import FORM_FIELDS, OVERRIDES

logger = logging.getLogger(__name__)

BENCHMARKS = "benchmarks"
BLANK = " \t\r\n"


def overrides_of(overrides: str, fields: Mapping[str, str]) -> dict[str, str]:
    """Read the changes of a recipe from the form: `FIELD=VALUE` by dotted field, and the form's own fields.

    Args:
        overrides: changes such as `training.seed=2 data.skills=[coref, compare]`, with blanks or lines between them. A
            blank within brackets or quotes belongs to its value.
        fields: values of fields in `FORM_FIELDS`. An empty value changes nothing.

    Returns:
        YAML values by dotted field.

    Raises:
        ConfigError: a change has no `=`, or a field is given twice.
    """
    found: dict[str, str] = {}
    given = [_read(word) for word in split_outside(overrides, BLANK) if word]
    given += [(FORM_FIELDS[name], _as_list(name, value.strip())) for name, value in fields.items() if value.strip()]
    for field, value in given:
        if field in found:
            own = [name for name, meant in FORM_FIELDS.items() if meant == field]
            raise ConfigError(
                f"{field} is given twice: {found[field]} and {value}.",
                remedy=f"Write it once: in the field {own[0]}, or in overrides." if own else "Write it once.",
            )
        found[field] = value
    return found


def asked_overrides(overrides: str, fields: Mapping[str, str]) -> dict[str, str] | None:
    """Read the form like `overrides_of`, at the end of a run. None: preflight has refused the form."""
    try:
        return overrides_of(overrides, fields)
    except ConfigError:
        logger.warning("No run was started")
        return None


def _read(word: str) -> tuple[str, str]:
    field, equals, value = word.partition("=")
    if not equals or not field:
        raise ConfigError(
            f"overrides: {word!r} has no `=`.",
            remedy="Write FIELD=VALUE with blanks between them: training.seed=2 data.skills=[coref, compare].",
        )
    return field, value


def _as_list(name: str, value: str) -> str:
    """The value of a form's field as YAML: benchmarks are a list, with commas or blanks between the names."""
    if name != BENCHMARKS or value.startswith("["):
        return value
    return f"[{', '.join(part for part in split_outside(value, BLANK + ',') if part)}]"


def filled_in(overrides: Mapping[str, str], fields: Collection[str]) -> dict[str, str]:
    """Fill in the form: the inverse of `overrides_of`, for a form that has `fields` and `overrides`."""
    own = dict.fromkeys(fields, "")
    rest = []
    for field, value in overrides.items():
        name = next((name for name in fields if FORM_FIELDS[name] == field), None)
        if name is not None and value.strip() and (name != BENCHMARKS or value.lstrip().startswith("[")):
            own[name] = value.strip()
        else:
            rest.append(_as_word(field, value))
    return {**own, OVERRIDES: " ".join(rest)}


def _as_word(field: str, value: str) -> str:
    """`FIELD=VALUE` without a blank outside of brackets and quotes. Another value is written as JSON."""
    word = f"{field}={value}"
    if split_outside(f"{word} next", BLANK) == [word, "next"]:  # also refuses an open bracket or quote
        return word
    try:
        return f"{field}={json.dumps(parse_yaml(value), ensure_ascii=False, default=str)}"
    except yaml.YAMLError:
        return f"{field}={json.dumps(value, ensure_ascii=False)}"
