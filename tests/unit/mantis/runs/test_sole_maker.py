import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.errors import StoreError, TrainingError
from mantis.runs import sole_maker
from mantis.runs.records import State, read_record
from mantis.runs.sole_maker import DEAD, is_heartbeat
from mantis.runs.step_runner import Run, StepSpec, run_step
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from tests.helpers.waiting import HANG_SECONDS, until

TASK = StepSpec(step="assemble", kind=ArtifactKind.MIXTURE, revision=1, config={})
RUNS = 4


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_PAUSE", 0.05), ("LONGEST_PAUSE", 0.2), ("BEAT", 0.1)):
        monkeypatch.setattr(sole_maker, name, seconds)


@pytest.fixture(params=["local_store", "minio_store"])
def shared(request: pytest.FixtureRequest, run: Run) -> Run:
    """A run in a store of each kind."""
    return replace(run, store=request.getfixturevalue(request.param))


def heartbeats(store: ObjectStore) -> list[str]:
    return [entry.key for entry in store.list(TASK.address()) if is_heartbeat(TASK.address(), entry.key)]


def claimed(store: LocalStore, run: str, age: float) -> None:
    """The heartbeat of another run, `age` seconds old."""
    key = f"{TASK.address()}/makers/working/{run}/heartbeat.json"
    store.put(key, b"{}")
    then = time.time() - age
    os.utime(store.root / key, (then, then))


def test_runs_that_begin_together_make_it_once_and_one_after_another(shared: Run) -> None:
    """Each fails but the last, so that every one of them has its turn."""
    at_work: list[tuple[float, float]] = []
    together = threading.Barrier(RUNS)

    def work(prefix: str) -> dict[str, Any]:
        began = time.monotonic()
        for entry in list(shared.store.list(f"{prefix}/part")):
            shared.store.delete(entry.key)
        shared.store.put(f"{prefix}/part/{threading.get_ident()}", b"data")
        time.sleep(0.3)
        at_work.append((began, time.monotonic()))
        if len(at_work) < RUNS:
            raise TrainingError("not yet.", remedy="Again.")
        return {"rows": 1}

    def make(name: str) -> Manifest | None:
        together.wait()
        try:
            return run_step(replace(shared, id=name), TASK, work)
        except TrainingError:
            return None

    with ThreadPoolExecutor(RUNS) as pool:
        made = [each for each in pool.map(make, [f"run-{number}" for number in range(RUNS)]) if each]
    assert len(made) == 1
    assert len(at_work) == RUNS
    assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(at_work)))
    assert [file.name.partition("/")[0] for file in made[0].files] == ["part"]
    assert heartbeats(shared.store) == []


def test_a_run_that_waits_takes_the_result_of_the_other(shared: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = replace(shared, id="first"), replace(shared, id="second")
    started = threading.Event()

    def slow(prefix: str) -> dict[str, Any]:
        started.set()
        until("the other run waits", lambda: "This run waits" in caplog.text)
        shared.store.put(f"{prefix}/object", b"data")
        return {"rows": 1}

    def never(prefix: str) -> dict[str, Any]:
        raise AssertionError("the result of the first run was made a second time")

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(run_step, first, TASK, slow)
        assert started.wait(HANG_SECONDS)
        taken = run_step(second, TASK, never)
    assert taken == made.result()
    assert read_record(shared.store, "second", "assemble").state is State.REUSED
    said = [record.message for record in caplog.records if "This run waits" in record.message]
    assert said == [f"Run first makes {shared.store.uri(TASK.address())} now. This run waits for the result"]


def test_a_heartbeat_is_fresh_for_as_long_as_the_work_takes(run: Run, local_store: LocalStore) -> None:
    written: set[float] = set()

    def work(prefix: str) -> dict[str, Any]:
        def beats() -> int:
            written.update(entry.written for entry in local_store.list(f"{prefix}/makers/working"))
            return len(written)

        until("three heartbeats", lambda: beats() == 3)
        return {"rows": 1}

    run_step(run, TASK, work)
    assert len(written) == 3


def no_work(prefix: str) -> dict[str, Any]:
    return {"rows": 1}


@pytest.mark.parametrize("name", ["killed", "test"])
def test_the_heartbeat_of_a_killed_maker_stops_nobody(run: Run, local_store: LocalStore, name: str) -> None:
    """That of another run once it is old; the run's own at once."""
    claimed(local_store, run.id if name == "test" else name, age=DEAD + 1 if name == "killed" else 0)
    run_step(run, TASK, no_work)
    assert heartbeats(local_store) == []
    assert read_manifest(local_store, TASK.address()).files == ()


def test_a_living_maker_is_waited_for_until_it_dies(
    run: Run, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole_maker, "DEAD", 1.5)
    began = time.monotonic()
    claimed(local_store, "killed", age=0)
    run_step(run, TASK, no_work)
    assert time.monotonic() - began > 1.2


@pytest.mark.parametrize("kind", [ArtifactKind.CONTAMINATION, ArtifactKind.CHECKPOINT])
def test_what_no_maker_deletes_is_made_without_waiting(run: Run, local_store: LocalStore, kind: Any) -> None:
    task = replace(TASK, kind=kind)
    local_store.put(f"{task.address()}/makers/working/other/heartbeat.json", b"{}")
    run_step(run, task, no_work)
    assert read_record(local_store, run.id, "assemble").state is State.DONE


def test_a_store_that_is_away_for_a_while_does_not_end_the_work(
    run: Run, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put: Callable[[LocalStore, str, bytes], None] = LocalStore.put
    refused = threading.Event()

    def away(store: LocalStore, key: str, data: bytes) -> None:
        if refused.is_set() and key.endswith("heartbeat.json"):
            raise StoreError("the store is away.", remedy="Wait.")
        put(store, key, data)

    def work(prefix: str) -> dict[str, Any]:
        refused.set()
        until("a failure", lambda: "was not written: the store is away." in caplog.text)
        return {"rows": 1}

    monkeypatch.setattr(LocalStore, "put", away)
    run_step(run, TASK, work)
    assert "was not written: the store is away." in caplog.text


def test_a_listing_leaves_out_what_is_deleted_meanwhile(local_store: LocalStore) -> None:
    """As heartbeats are, while another run looks for them."""
    for key in ("a/1", "a/2", "a/3"):
        local_store.put(key, b"data")
    listed = local_store.list("a")
    first = next(iter(listed))
    local_store.delete("a/2")
    assert [first.key, *(entry.key for entry in listed)] == ["a/1", "a/3"]


def test_two_runs_assemble_the_same_mixture_at_the_same_time(
    raw_folder: Any, run_on: Callable[..., Run], make_jpeg: Callable[..., bytes]
) -> None:
    """As two arms of a sweep do, whose mixtures are the same."""
    from components.data.step import assemble, prepare

    image = raw_folder.image("a.jpg", make_jpeg())
    raw_folder.write([raw_folder.row(f"{number}", image) for number in range(20)])
    base = run_on(raw_folder.folder)
    together = threading.Barrier(2)

    def arm(name: str) -> tuple[Manifest, Manifest]:
        run = replace(base, id=name)
        together.wait()
        dataset = prepare(run, "raw")
        together.wait()
        return dataset, assemble(run, [dataset])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(arm, ["one", "two"])
    assert first == second
