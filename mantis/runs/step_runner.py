"""One wrapper around every step of every DAG: address, reuse, commit, the run's own record, failure messages.

Each step leaves its record in the run's folder: mantis/runs/records.py.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mantis.artifacts.layout import FINGERPRINT, RECIPE, ArtifactKind, run_key
from mantis.artifacts.manifest import (
    MANIFEST,
    Manifest,
    Number,
    commit_manifest,
    describe_files,
    provenance,
    read_manifest,
)
from mantis.config.recipe import Recipe, read_stored_recipe
from mantis.errors import ConfigError, MantisError, NotFoundError, did_you_mean
from mantis.hashing import fingerprint
from mantis.logging import configure, name_step
from mantis.processes import die_with_parent, die_with_process
from mantis.runs.arms import parent_of
from mantis.runs.kfp_form import place_on_form
from mantis.runs.records import State, StepRecord, read_record, reason_of, runs, write_record
from mantis.runs.sole_maker import is_heartbeat, sole_maker
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)

KFP_POD = "KFP_POD_NAME"  # set by KFP in the pods of its tasks
DAG_PID = "MANTIS_DAG_PID"  # the process that runs the DAG on this machine
# Their makers delete what an earlier attempt left. A training looks after itself: mantis/runs knows no ranks.
MADE_ALONE = (ArtifactKind.DATASET, ArtifactKind.MIXTURE, ArtifactKind.MODEL)


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
        return run_key(self.id, name)


def open_run(run: str, store_url: str) -> Run:
    """The run `run`, as preflight wrote it."""
    store = open_store(store_url)
    key = run_key(run, RECIPE)
    try:
        text = store.get(key).decode(errors="replace")
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
    kind: ArtifactKind
    revision: int
    config: dict[str, Any]
    inputs: dict[str, Manifest] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)  # of the address, besides the fingerprint

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

    def address(self) -> str:
        """The key of the result, by the form that the layout gives to its kind.

        Raises:
            ConfigError: `parts` does not have the parts of that form.
        """
        own = {FINGERPRINT: self.fingerprint()} if FINGERPRINT in self.kind.pattern.names else {}
        return self.kind.address(**own, **self.parts)


Compute = Callable[[str], dict[str, Number]]


def run_step(run: Run, task: StepSpec, work: Compute) -> Manifest:
    """The result of `task`: the one that is already there, or the one that `work(prefix)` makes.

    `work` puts the result's objects under the key prefix it is given and returns the summary numbers. Whatever a
    killed attempt left there is `work`'s to use or to overwrite.

    Raises:
        MantisError: as `work` raises it, after it was recorded.
    """
    name_step(run.id, run.shown(task.step))
    made = task.fingerprint()
    before = read_record(run.store, run.id, task.step)
    began = _now()
    existing = _existing(run, task)
    if existing is not None:
        return _reused(run, task, existing, before, began)
    attempts = 1 + (before.attempts if before and before.fingerprint == made else 0)
    _record(run, task, State.STARTED, began, attempts=attempts, made=made)
    if task.kind not in MADE_ALONE:
        return _made(run, task, work, began, attempts)
    with sole_maker(run.store, task.address(), run.id, lambda: _existing(run, task) is not None):
        existing = _existing(run, task)
        if existing is not None:  # another run made it while this one waited
            return _reused(run, task, existing, before, began)
        return _made(run, task, work, began, attempts)


def _existing(run: Run, task: StepSpec) -> Manifest | None:
    """The result that is there. One of another fingerprint, at an address that is not made of it, is withdrawn."""
    prefix = task.address()
    existing = read_manifest(run.store, prefix)
    if existing is not None and existing.fingerprint != task.fingerprint():
        run.store.delete(f"{prefix}/{MANIFEST}")
        return None
    return existing


def _reused(run: Run, task: StepSpec, existing: Manifest, before: StepRecord | None, began: str) -> Manifest:
    logger.info("The result was already there: %s", run.store.uri(existing.key))
    same = before is not None and before.fingerprint == existing.fingerprint
    done = before is not None and before.state in (State.DONE, State.REUSED)
    seconds = before.seconds if before is not None and same and done else 0.0
    _record(run, task, State.REUSED, began, seconds=seconds, attempts=0, manifest=existing)
    return existing


def _made(run: Run, task: StepSpec, work: Compute, began: str, attempts: int) -> Manifest:
    made, prefix = task.fingerprint(), task.address()
    clock = time.monotonic()
    try:
        summary = work(prefix)
        manifest = Manifest(
            kind=task.kind,
            key=prefix,
            fingerprint=made,
            inputs={name: manifest.reference() for name, manifest in task.inputs.items()},
            made_by=provenance(task.step, task.revision, task.config, run=run.id),
            files=describe_files(run.store, prefix, without=partial(is_heartbeat, prefix)),
            summary=summary,
        )
        commit_manifest(run.store, manifest)
    except BaseException as error:
        seconds = time.monotonic() - clock
        _record(run, task, State.FAILED, began, seconds=seconds, attempts=attempts, made=made, reason=reason_of(error))
        raise
    _record(run, task, State.DONE, began, seconds=time.monotonic() - clock, attempts=attempts, manifest=manifest)
    return manifest


def mark_started(run: Run, task: StepSpec) -> bool:
    """Record that `task` is under way where no `run_step` does it, so that its unfinished work is known to be ours.

    A record that names the task already is that of a `run_step`, and stays. Returns whether no `run_step` does it.
    """
    made = task.fingerprint()
    before = read_record(run.store, run.id, task.step)
    if before is not None and before.fingerprint == made and before.attempts:
        return False
    if before is None or before.fingerprint != made:
        _record(run, task, State.STARTED, _now(), attempts=0, made=made)
    return True


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
    write_record(run.store, run.id, taken)
    return found


@contextmanager
def recorded(run: Run, step: str) -> Iterator[None]:
    """Keep the record of a step that makes no artifact of its own (preflight, the lists that loops run over)."""
    began, clock = _now(), time.monotonic()
    write_record(run.store, run.id, StepRecord(step=step, state=State.STARTED, started=began))
    with failure_recorded(run, step):
        yield
    seconds = round(time.monotonic() - clock, 3)
    record = StepRecord(step=step, state=State.DONE, started=began, ended=_now(), seconds=seconds)
    write_record(run.store, run.id, record)


@contextmanager
def failure_recorded(run: Run, step: str) -> Iterator[None]:
    """Keep the record of a step that fails here; for what comes before `run_step`, as hashing an input does."""
    name_step(run.id, run.shown(step))
    began, clock = _now(), time.monotonic()
    try:
        yield
    except BaseException as error:
        seconds, reason = round(time.monotonic() - clock, 3), reason_of(error)
        record = StepRecord(step=step, state=State.FAILED, started=began, ended=_now(), seconds=seconds, reason=reason)
        write_record(run.store, run.id, record)
        raise


@contextmanager
def result_refused(run: Run, step: str, result: Manifest) -> Iterator[None]:
    """Keep the record of a step that fails here, after its result is in the store. The record names the result."""
    try:
        yield
    except MantisError as error:
        before = read_record(run.store, run.id, step)
        began, seconds = (before.started, before.seconds) if before is not None else (_now(), 0.0)
        record = StepRecord(
            step=step,
            state=State.FAILED,
            started=began,
            ended=_now(),
            seconds=seconds,
            reason=reason_of(error),
            key=result.key,
            fingerprint=result.fingerprint,
            summary=result.summary,
        )
        write_record(run.store, run.id, record)
        raise


@contextmanager
def component_main() -> Iterator[None]:
    """Around the body of every KFP component: an error of ours ends it with one paragraph and exit code 1.

    The component also dies with the process that runs the DAG, so that nothing works on after a kill. On this machine
    its parent is a shell of KFP's, which outlives that process.
    """
    die_with_parent()
    if dag := os.environ.get(DAG_PID):
        die_with_process(int(dag))
    try:
        configure()
        yield
    except MantisError as error:
        # Only an error of the settings is about each field that it names.
        advice = str(error) if isinstance(error, ConfigError) else error.remedy
        place = place_on_form(advice) if KFP_POD in os.environ else ""
        logger.error("The step failed: %s%s", error, place)
        raise SystemExit(1) from None


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
    write_record(run.store, run.id, record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
