"""The schema version of each stored form, and the check of a version on reading.

Every stored JSON or YAML form has a field `schema_version`. A form without it predates versions and is read as version
1. No identity contains a version. Increase a number here when a reader of the present form could not read the new one.
Rows of metrics.jsonl and skipped.jsonl belong to a checkpoint and share its version. Lance and Parquet tables, and the
files of Hugging Face and DeepSpeed, have schemas of their own.
"""

import json
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from mantis.errors import IntegrityError, VersionError

FIELD = "schema_version"
FOREIGN = "Find out who wrote it. Delete it, and run the step that makes it."


class Form(StrEnum):
    """A stored form; its value is the name that messages show."""

    RECIPE = "recipe"
    STEP_RECORD = "step record"
    RUN_SUMMARY = "summary of a run"
    ARMS = "arms of an ablation"
    SEARCH = "search.json of a sweep"
    TRIAL = "trial of a sweep"
    FETCH = "fetch.json"
    FRAGMENT = "record of a fragment"
    MIXTURE_SUBSETS = "subsets.json"
    HELD_OUT = "holdout.json of a mixture"
    CONTAMINATION = "benchmarks.json"
    COMMIT = "COMMIT"
    TRAINING_STATE = "state of a checkpoint"
    ADAPTER_BASE = "base.json"
    TRAINING_SUMMARY = "training.json"
    TRAINING_PLAN = "plan.json"
    HEARTBEAT = "heartbeat.json"
    TRAINING_PROGRESS = "progress.json"
    RESPONSE = "response"
    JOURNAL = "entry of a response journal"
    SCORES = "scores.json"
    GALLERY = "gallery.json"
    HELD_OUT_SCORES = "holdout.json of an evaluation"
    REPORT_SUMMARY = "summary of a report"


# Version 2 of step records holds keys instead of absolute URIs. Version 2 of training states holds the state of each
# callback by its name, and version 3 the optimizer's groups. Version 2 of responses and gallery.json has `parsed`
# instead of `understood`. Version 2 of a fragment's record has the digests of its kept rows. Version 3 of responses has
# `variants` and `cut`.
CURRENT: dict[Form, int] = (
    dict.fromkeys(Form, 1)
    | dict.fromkeys((Form.STEP_RECORD, Form.GALLERY, Form.FRAGMENT), 2)
    | {Form.RESPONSE: 3, Form.TRAINING_STATE: 3}
)


class Versioned(BaseModel):
    """Base of a stored form that is a pydantic model.

    Pass the origin for error messages with `model_validate_json(..., context=origin(URI))`.
    """

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
    """Return the context with which an error of `Versioned` names the form's location."""
    return {"origin": uri}


def versioned(form: Form, content: dict[str, Any]) -> dict[str, Any]:
    """Return `content` with its version in front, for storage."""
    return {FIELD: CURRENT[form], **content}


def without_version(form: Form, raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return the content of a stored object.

    Raises:
        VersionError: a later version of this program wrote it.
    """
    check_version(form, raw, origin)
    content = dict(raw)
    content.pop(FIELD, None)
    return content


def rows_of(form: Form, key: str, raw: Any, origin: str) -> Any:
    """Return the list at `key` of a stored object; `raw` itself if it is a plain list from before versions.

    Raises:
        VersionError: a later version of this program wrote it.
    """
    if not isinstance(raw, dict):
        return raw
    check_version(form, raw, origin)
    return raw.get(key)


def load_json(data: bytes, origin: str) -> Any:
    """Parse a stored JSON text.

    Raises:
        IntegrityError: it is none; names `origin`.
    """
    try:
        return json.loads(data)
    except ValueError as error:  # of JSON, and of UTF-8
        raise IntegrityError(f"{origin} is not JSON: {error}.", remedy=FOREIGN) from None


def load_rows(form: Form, key: str, data: bytes, origin: str) -> list[Any]:
    """Parse the JSON text `data`, and return its `rows_of`."""
    rows: list[Any] = rows_of(form, key, load_json(data, origin), origin)
    return rows


def check_version(form: Form, raw: dict[str, Any], origin: str) -> None:
    """Refuse a form that this version of the program cannot read.

    Raises:
        VersionError: a later version of this program wrote it, or its version is not a number.
    """
    version = raw.get(FIELD, 1)
    if isinstance(version, int) and not isinstance(version, bool) and 1 <= version <= CURRENT[form]:
        return
    raise VersionError(
        f"{origin or f'A {form}'} has {FIELD} = {version!r}, but this program reads a {form} up to version "
        f"{CURRENT[form]}.",
        remedy="Use the version of Mantis that wrote it, or a later one.",
    )
