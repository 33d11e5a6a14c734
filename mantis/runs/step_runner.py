"""One wrapper around every step of every DAG: address, reuse, commit, the run's own record, failure messages.

KFP's final status and error fields cannot be relied on, so what happened is written down here:
`runs/<run>/steps/<step>.json`.
"""

import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, ValidationInfo, model_validator

from mantis import progress
from mantis.artifacts.manifest import (
    MANIFEST,
    Key,
    Kind,
    Manifest,
    Number,
    commit_manifest,
    describe_files,
    former_key,
    provenance,
    read_manifest,
)
from mantis.config.recipe import Recipe, read_stored_recipe
from mantis.errors import ConfigError, MantisError, NotFoundError, did_you_mean
from mantis.hashing import fingerprint
from mantis.processes import die_with_parent
from mantis.runs.arms import parent_of
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore, open_store

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


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as a step sees it: its id, its store and its resolved recipe."""

    id: str
    store: ObjectStore
    recipe: Recipe
    parent: str = ""  # of an arm of an ablation: the run that compares the arms

    def shown(self, step: str) -> str:
        """What a person reads as the name of a step: the arm stands before it, where there is one."""
        return f"{self.id.removeprefix(f'{self.parent}-')} {step}" if self.parent else step

    def key(self, name: str) -> str:
        """Key of an object of the run's own folder."""
        return f"runs/{self.id}/{name}"


def open_run(run: str, store_url: str) -> Run:
    """The run `run`, as preflight wrote it."""
    store = open_store(store_url)
    key = f"runs/{run}/recipe.yaml"
    try:
        text = store.get(key).decode()
    except NotFoundError:
        raise ConfigError(
            f"run = {run!r} is not in {store.url}.",
            remedy=f"{did_you_mean(run, runs(store))}`mantis status` lists the runs of a store.",
        ) from None
    recipe = read_stored_recipe(text, origin=store.uri(key))
    return Run(id=run, store=store, recipe=recipe, parent=parent_of(store, run))


@dataclass(frozen=True, kw_only=True)
class StepSpec:
    """What a step is about to make."""

    step: str
    kind: Kind
    revision: int
    config: dict[str, Any]
    inputs: dict[str, Manifest] = field(default_factory=dict)
    address: Callable[[str], str]

    def fingerprint(self) -> str:
        """Hash of everything that decides the result."""
        return fingerprint(
            {
                "step": self.step,
                "revision": self.revision,
                "config": self.config,
                "inputs": {name: manifest.fingerprint for name, manifest in self.inputs.items()},
            }
        )


Compute = Callable[[str], dict[str, Number]]


def run_step(run: Run, task: StepSpec, work: Compute) -> Manifest:
    """The result of `task`: the one that is already there, or the one that `work(prefix)` makes.

    `work` puts the result's objects under the key prefix it is given and returns the summary numbers. Whatever a
    killed attempt left there is `work`'s to use or to overwrite.

    Raises:
        MantisError: as `work` raises it, after it was recorded.
    """
    os.environ[progress.STEP] = run.shown(task.step)
    made = task.fingerprint()
    prefix = task.address(made)
    before = read_record(run.store, run.id, task.step)
    began, clock = _now(), time.monotonic()
    existing = read_manifest(run.store, prefix)
    if existing is not None and existing.fingerprint != made:  # an address that is not made of the fingerprint
        run.store.delete(f"{prefix}/{MANIFEST}")
        existing = None
    if existing is not None:
        progress.say(f"result was already there: {run.store.uri(prefix)}")
        same = before is not None and before.fingerprint == made and before.state in (State.DONE, State.REUSED)
        seconds = before.seconds if same and before is not None else 0.0
        _record(run, task, State.REUSED, began, seconds=seconds, attempts=0, manifest=existing)
        return existing
    attempts = 1 + (before.attempts if before and before.fingerprint == made else 0)
    _record(run, task, State.STARTED, began, attempts=attempts, made=made)
    try:
        summary = work(prefix)
        manifest = Manifest(
            kind=task.kind,
            key=prefix,
            fingerprint=made,
            inputs={name: manifest.reference() for name, manifest in task.inputs.items()},
            made_by=provenance(task.step, task.revision, task.config, run=run.id),
            files=describe_files(run.store, prefix),
            summary=summary,
        )
        commit_manifest(run.store, manifest)
    except BaseException as error:
        seconds = time.monotonic() - clock
        _record(run, task, State.FAILED, began, seconds=seconds, attempts=attempts, made=made, reason=reason_of(error))
        raise
    _record(run, task, State.DONE, began, seconds=time.monotonic() - clock, attempts=attempts, manifest=manifest)
    return manifest


def mark_started(run: Run, task: StepSpec) -> None:
    """Record that `task` is under way where no `run_step` does it, so that its unfinished work is known to be ours.

    A record that names the task already is that of a `run_step`, and stays.
    """
    made = task.fingerprint()
    before = read_record(run.store, run.id, task.step)
    if before is None or before.fingerprint != made:
        _record(run, task, State.STARTED, _now(), attempts=0, made=made)


def record_existing(run: Run, step: str, find: Callable[[], Manifest]) -> Manifest:
    """The artifact that `find` finds in the store; the run's record names it, so that it stays as long as the run."""
    began = _now()
    with failure_recorded(run, step):
        found = find()
    taken = StepRecord(
        step=step,
        state=State.REUSED,
        started=began,
        ended=_now(),
        attempts=0,
        key=found.key,
        fingerprint=found.fingerprint,
        summary=found.summary,
    )
    _write_record(run, taken)
    return found


@contextmanager
def recorded(run: Run, step: str) -> Iterator[None]:
    """Keep the record of a step that makes no artifact of its own (preflight, the lists that loops run over)."""
    began, clock = _now(), time.monotonic()
    _write_record(run, StepRecord(step=step, state=State.STARTED, started=began))
    with failure_recorded(run, step):
        yield
    seconds = round(time.monotonic() - clock, 3)
    _write_record(run, StepRecord(step=step, state=State.DONE, started=began, ended=_now(), seconds=seconds))


@contextmanager
def failure_recorded(run: Run, step: str) -> Iterator[None]:
    """Keep the record of a step that fails here; for what comes before `run_step`, as hashing an input does."""
    os.environ[progress.STEP] = run.shown(step)
    began, clock = _now(), time.monotonic()
    try:
        yield
    except BaseException as error:
        seconds, reason = round(time.monotonic() - clock, 3), reason_of(error)
        record = StepRecord(step=step, state=State.FAILED, started=began, ended=_now(), seconds=seconds, reason=reason)
        _write_record(run, record)
        raise


@contextmanager
def component_main() -> Iterator[None]:
    """Around the body of every KFP component: an error of ours ends it with one paragraph and exit code 1.

    The component also dies with the process that runs the DAG, so that nothing works on after a kill.
    """
    die_with_parent()
    try:
        yield
    except MantisError as error:
        progress.say(f"failed: {error}")
        raise SystemExit(1) from None


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
    key = f"runs/{run}/steps/{step}.json"
    if store.stat(key) is None:
        return None
    return _parse_record(store, key)


def runs(store: ObjectStore) -> list[str]:
    """Ids of the runs in the store."""
    return sorted(folder.removeprefix("runs/") for folder in store.children("runs")[1])


def read_records(store: ObjectStore, run: str) -> list[StepRecord]:
    """Every step's record, in the order in which they began."""
    entries = store.list(f"runs/{run}/steps")
    records = [_parse_record(store, entry.key) for entry in entries]
    return sorted(records, key=lambda record: record.started)


def _parse_record(store: ObjectStore, key: str) -> StepRecord:
    return StepRecord.model_validate_json(store.get(key), context={**origin(store.uri(key)), "store": store})


def _record(
    run: Run,
    task: StepSpec,
    state: State,
    began: str,
    *,
    attempts: int,
    seconds: float = 0.0,
    reason: str = "",
    made: str = "",
    manifest: Manifest | None = None,
) -> None:
    record = StepRecord(
        step=task.step,
        state=state,
        started=began,
        ended=None if state is State.STARTED else _now(),
        seconds=round(seconds, 3),
        attempts=attempts,
        reason=reason,
        key=manifest.key if manifest else "",
        fingerprint=manifest.fingerprint if manifest else made,
        summary=manifest.summary if manifest else {},
    )
    _write_record(run, record)


def _write_record(run: Run, record: StepRecord) -> None:
    stored = record.model_copy(update={"reason": _without_address(record.reason, run.store.url)})
    run.store.put(run.key(f"steps/{record.step}.json"), stored.model_dump_json(indent=1).encode())
    progress.publish(state=record.state.value, label=record.step, reason=record.reason, seconds=record.seconds)


def _without_address(reason: str, url: str) -> str:
    """The reason with keys for URIs of the store, which may move; the terminal shows the URIs."""
    return re.sub(rf"{re.escape(url)}(?![\w-])", "the store", reason.replace(f"{url}/", ""))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
