"""The schema version of each form that lies in a store, and the check of a version that was read.

Every stored JSON or YAML form says `schema_version`. One without it is from before versions and is read as version 1.
A version is part of no identity. Raise a number here when a reader of the present form could not read the new one.
Rows of metrics.jsonl and skipped.jsonl belong to a checkpoint and share its version. Lance and Parquet tables, and the
files of Hugging Face and DeepSpeed, carry schemas of their own.
"""

import json
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from mantis.errors import VersionError

FIELD = "schema_version"


class Form(StrEnum):
    """A stored form, by the name that a person knows."""

    RECIPE = "recipe"
    STEP_RECORD = "step record"
    RUN_SUMMARY = "summary of a run"
    ARMS = "arms of an ablation"
    FETCH = "fetch.json"
    FRAGMENT = "record of a fragment"
    MIXTURE_SUBSETS = "subsets.json"
    CONTAMINATION = "benchmarks.json"
    COMMIT = "COMMIT"
    TRAINING_STATE = "state of a checkpoint"
    ADAPTER_BASE = "base.json"
    TRAINING_SUMMARY = "training.json"
    HEARTBEAT = "heartbeat.json"
    RESPONSE = "response"
    JOURNAL = "entry of a response journal"
    SCORES = "scores.json"
    GALLERY = "gallery.json"
    REPORT_SUMMARY = "summary of a report"


# Of version 2: step records hold keys instead of absolute URIs, training states the memory of each callback by its
# name, and responses and gallery.json say `parsed` for `understood`.
CURRENT: dict[Form, int] = dict.fromkeys(Form, 1) | dict.fromkeys(
    (Form.STEP_RECORD, Form.TRAINING_STATE, Form.RESPONSE, Form.GALLERY), 2
)


class Versioned(BaseModel):
    """Base of a stored form that is a model. Name the origin by `model_validate_json(..., context=origin(URI))`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: ClassVar[Form]
    schema_version: int = 1

    @model_validator(mode="before")
    @classmethod
    def _is_known(cls, raw: Any, info: ValidationInfo) -> Any:
        if isinstance(raw, dict):
            check_version(cls.form, raw, (info.context or {}).get("origin", ""))
            return {**raw, FIELD: CURRENT[cls.form]}
        return raw


def origin(uri: str) -> dict[str, str]:
    """The context that lets an error of `Versioned` name where the form lies."""
    return {"origin": uri}


def versioned(form: Form, content: dict[str, Any]) -> dict[str, Any]:
    """`content` with its version before it, as it is stored."""
    return {FIELD: CURRENT[form], **content}


def without_version(form: Form, raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """The content of a stored object.

    Raises:
        VersionError: a later version of this program wrote it.
    """
    check_version(form, raw, origin)
    return {name: value for name, value in raw.items() if name != FIELD}


def rows_of(form: Form, key: str, raw: Any, origin: str) -> Any:
    """The list at `key` of a stored object; `raw` itself where it is the plain list of before versions.

    Raises:
        VersionError: a later version of this program wrote it.
    """
    if not isinstance(raw, dict):
        return raw
    check_version(form, raw, origin)
    return raw.get(key)


def load_rows(form: Form, key: str, data: bytes, origin: str) -> list[Any]:
    """`rows_of` the JSON text `data`."""
    rows: list[Any] = rows_of(form, key, json.loads(data), origin)
    return rows


def check_version(form: Form, raw: dict[str, Any], origin: str) -> None:
    """Refuse a form that this version of the program does not know.

    Raises:
        VersionError: a later version of this program wrote it, or its version is no number.
    """
    version = raw.get(FIELD, 1)
    if isinstance(version, int) and not isinstance(version, bool) and 1 <= version <= CURRENT[form]:
        return
    raise VersionError(
        f"{origin or f'A {form}'} says {FIELD} = {version!r}; this program reads a {form} up to version "
        f"{CURRENT[form]}.",
        remedy="Use the version of Mantis that wrote it, or a later one.",
    )
