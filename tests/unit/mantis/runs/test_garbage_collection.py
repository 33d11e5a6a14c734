import os
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest
from mantis.errors import NotFoundError, TrainingError
from mantis.runs.garbage_collection import _heaps, delete, garbage
from mantis.runs.step_runner import Run, StepSpec, record_existing, run_step
from mantis.store.base import ObjectStore
from tests.helpers.paths import root_of


def make(
    run: Run,
    step: str,
    kind: ArtifactKind,
    *,
    inputs: dict[str, Manifest] | None = None,
    config: dict[str, Any] | None = None,
    fails: bool = False,
    **parts: str,
) -> Manifest:
    task = StepSpec(
        step=step,
        kind=kind,
        revision=1,
        config=config or {},
        inputs=inputs or {},
        parts=parts,
    )

    def work(prefix: str) -> Any:
        run.store.put(f"{prefix}/object", b"four")
        if fails:
            raise TrainingError("killed", remedy="")
        return {}

    return run_step(run, task, work)


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """Two runs that share their data, with a checkpoint each."""

    run: Run
    other: Run
    mine: Manifest
    theirs: Manifest


@pytest.fixture
def two_runs(run: Run) -> TwoRuns:
    """Two runs that share their data, and of which each has trained its own checkpoint."""
    other = replace(run, id="other")
    data = make(run, "prepare-a", ArtifactKind.DATASET, subset="a")
    make(other, "prepare-a", ArtifactKind.DATASET, subset="a")
    mine = make(run, "train", ArtifactKind.CHECKPOINT, inputs={"a": data}, config={"rate": 1})
    theirs = make(other, "train", ArtifactKind.CHECKPOINT, inputs={"a": data}, config={"rate": 2})
    return TwoRuns(run=run, other=other, mine=mine, theirs=theirs)


def key(store: ObjectStore, manifest: Manifest) -> str:
    return manifest.key


def test_nothing_of_a_run_is_garbage(two_runs: TwoRuns) -> None:
    assert garbage(two_runs.run.store) == []


def test_what_is_forgotten_leaves_what_others_share(two_runs: TwoRuns) -> None:
    run, other, mine, theirs = two_runs.run, two_runs.other, two_runs.mine, two_runs.theirs
    (heap,) = garbage(run.store, without=frozenset({other.id}))
    assert heap.key == key(run.store, theirs)
    assert (heap.objects, heap.whole) == (2, True)
    delete(run.store, heap)
    assert list(run.store.list(heap.key)) == []
    assert run.store.stat(f"{key(run.store, mine)}/manifest.json")


def test_what_is_under_way_stays_and_what_was_given_up_goes(two_runs: TwoRuns) -> None:
    run, other = two_runs.run, two_runs.other
    with pytest.raises(TrainingError):
        make(other, "train", ArtifactKind.CHECKPOINT, config={"rate": 3}, fails=True)
    # Its record is the newest of `other`'s training: the one before is what nothing names now.
    (heap,) = garbage(run.store)
    assert heap.whole
    unfinished = [heap for heap in garbage(run.store, without=frozenset({other.id})) if not heap.whole]
    assert [heap.objects for heap in unfinished] == [1]


def test_what_a_person_brought_stays(run: Run) -> None:
    made = MadeBy(step="import-model", revision=1, run="", config_hash="", code_version="", image_digest="")
    commit_manifest(run.store, Manifest(kind=ArtifactKind.MODEL, key="models/0123", fingerprint="0123", made_by=made))
    run.store.put("models/bases/x/commit/config.json", b"{}")
    run.store.put("models/4567/half.safetensors", b"")
    assert [heap.key for heap in garbage(run.store)] == ["models/4567"]


def test_what_is_unfinished_and_young_is_kept(run: Run) -> None:
    run.store.put("models/4567/first.safetensors", b"")
    run.store.put("models/4567/second.safetensors", b"")
    run.store.put("models/whole/manifest.json", b"")
    for name, hours in (("4567/first", 30), ("4567/second", 3)):
        os.utime(root_of(run.store) / "models" / f"{name}.safetensors", (time.time() - 3600 * hours,) * 2)
    half, whole = sorted(_heaps(run.store), key=lambda heap: heap.key)
    assert (half.kept(24), half.kept(2)) == (True, False)  # by its newest object
    assert not whole.kept(24)


def test_a_model_that_a_run_evaluates_stays_when_the_run_that_trained_it_goes(two_runs: TwoRuns) -> None:
    run, other, mine = two_runs.run, two_runs.other, two_runs.mine
    model = make(run, "convert", ArtifactKind.MODEL, inputs={"checkpoint": mine})
    run.store.put(f"responses/{model.fingerprint}/b/i/1.jsonl", b"")
    journal = f"responses/{model.fingerprint}/b/i"
    gone = {heap.key for heap in garbage(run.store, without=frozenset({run.id}))}
    assert {key(run.store, model), key(run.store, mine), journal} <= gone
    assert record_existing(other, "model", lambda: model) == model
    assert garbage(run.store, without=frozenset({run.id})) == []


def test_a_run_that_is_not_there_cannot_be_forgotten(run: Run) -> None:
    with pytest.raises(NotFoundError, match="has no run nobody"):
        garbage(run.store, without=frozenset({"nobody"}))
