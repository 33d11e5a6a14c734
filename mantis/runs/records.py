"""The record of every step of a run, `runs/<run>/steps/<step>.json`.

KFP's final status and error fields are not reliable. So the steps themselves write down here what happened.
"""

import re
import traceback
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from mantis import progress
from mantis.artifacts.layout import RUN, record_key, records_of
from mantis.artifacts.manifest import Key, Number, former_key
from mantis.errors import MantisError
from mantis.schema_versions import Form, Versioned, load_json, origin
from mantis.store.base import ObjectStore

STOPPED = "Stopped"  # the beginning of the reason of a step that somebody ended


class State(StrEnum):
    """What became of a step; a STARTED one whose process is gone was killed."""

    STARTED = "started"
    REUSED = "reused"
    DONE = "done"
    FAILED = "failed"


class StepRecord(Versioned):
    """`runs/<run>/steps/<step>.json`; `seconds` is the time of the attempt that made the result."""

    form = Form.STEP_RECORD
    schema_version: int = 2

    step: str
    state: State
    started: str
    ended: str | None = None
    seconds: float = 0.0
    attempts: int = 1
    reason: str = ""
    key: Key | Literal[""] = ""
    fingerprint: str = ""
    summary: dict[str, Number] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, raw: Any, info: ValidationInfo) -> Any:
        """Version 1 named its result by an absolute URI; `context["store"]` may have moved since."""
        if not isinstance(raw, dict) or "uri" not in raw:
            return raw
        rest = {name: value for name, value in raw.items() if name != "uri"}
        store: ObjectStore = (info.context or {})["store"]
        key = former_key(store, raw["uri"]) if raw["uri"] else ""
        return rest | {"schema_version": 2, "key": key}


def reason_of(error: BaseException) -> str:
    """What a person reads about a failure: one paragraph for an error of ours, else the exception's own line."""
    if isinstance(error, MantisError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return f"{STOPPED} by Ctrl-C. The same command continues from there."
    if isinstance(error, SystemExit):
        return f"{STOPPED} with exit code {error.code}. The same command continues from there."
    return "".join(traceback.format_exception_only(error)).strip()


def was_stopped(record: StepRecord) -> bool:
    """Whether somebody ended the step, which had not failed."""
    return record.state is State.FAILED and record.reason.startswith(STOPPED)


def read_record(store: ObjectStore, run: str, step: str) -> StepRecord | None:
    """The record of one step, None where it never began."""
    key = record_key(run, step)
    if store.stat(key) is None:
        return None
    return _parse_record(store, key)


def read_records(store: ObjectStore, run: str) -> list[StepRecord]:
    """Every step's record, in the order in which they began."""
    entries = store.list(records_of(run))
    records = [_parse_record(store, entry.key) for entry in entries]
    return sorted(records, key=lambda record: record.started)


def runs(store: ObjectStore) -> list[str]:
    """Ids of the runs in the store."""
    return sorted(folder.rpartition("/")[2] for folder in store.children(RUN.root)[1])


def write_record(store: ObjectStore, run: str, record: StepRecord) -> None:
    """Store the record, and tell the process that draws the progress."""
    _store(store, run, record)
    progress.publish(state=record.state.value, label=record.step, reason=record.reason, seconds=record.seconds)


def note_waiting(store: ObjectStore, run: str, step: str, reason: str) -> None:
    """Write into the record of a started step what it waits for; an empty reason ends the wait."""
    record = read_record(store, run, step)
    if record is None or record.state is not State.STARTED or record.reason == reason:
        return
    _store(store, run, record.model_copy(update={"reason": reason}))


def _store(store: ObjectStore, run: str, record: StepRecord) -> None:
    stored = record.model_copy(update={"reason": _without_address(record.reason, store.url)})
    store.commit(record_key(run, record.step), stored.model_dump_json(indent=1).encode(), after=())


def _parse_record(store: ObjectStore, key: str) -> StepRecord:
    uri = store.uri(key)
    return StepRecord.model_validate(load_json(store.get(key), uri), context={**origin(uri), "store": store})


def _without_address(reason: str, url: str) -> str:
    """The reason with keys for URIs of the store, which may move; the terminal shows the URIs."""
    return re.sub(rf"{re.escape(url)}(?![\w-])", "the store", reason.replace(f"{url}/", ""))
