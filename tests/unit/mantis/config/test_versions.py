import json
from typing import Any

import pytest

from components.training.checkpointing.saver import TrainingState
from components.training.checkpointing.training_summary import read_summary, write_summary
from mantis.artifacts.checkpoint import Commit, read_commit
from mantis.errors import VersionError
from mantis.runs.arms import arms_of, parent_of, write_arms
from mantis.runs.records import read_record, read_records
from mantis.runs.step_runner import Run, recorded
from mantis.schema_versions import CURRENT, Form, load_rows, rows_of, versioned, without_version
from mantis.store.local import LocalStore

COMMIT_BEFORE = b'{"step": 3, "world_size": 2, "zero_stage": 3, "files": []}'


def put(store: Any, key: Any, /, **content: Any) -> None:
    store.put(key, json.dumps(content).encode())


def test_every_form_has_a_version() -> None:
    assert CURRENT.keys() == set(Form)


def test_rows_are_read_from_a_document_and_from_the_plain_list_of_before() -> None:
    assert load_rows(Form.SCORES, "scores", json.dumps(versioned(Form.SCORES, {"scores": [1]})).encode(), "s") == [1]
    assert load_rows(Form.SCORES, "scores", b"[1]", "s") == [1]
    assert rows_of(Form.SCORES, "scores", {}, "s") is None


def test_a_later_version_is_refused_with_its_place() -> None:
    with pytest.raises(VersionError, match=r"x/scores\.json has schema_version = 2, but .* up to version 1") as caught:
        load_rows(Form.SCORES, "scores", b'{"schema_version": 2, "scores": []}', "x/scores.json")
    assert "Use the version of Mantis that wrote it" in caught.value.remedy
    with pytest.raises(VersionError):
        without_version(Form.HEARTBEAT, {"schema_version": 9}, "x")


def test_a_step_record_of_before_versions_is_read_and_a_later_one_is_not(run: Run) -> None:
    with recorded(run, "preflight"):
        pass
    key = run.key("steps/preflight.json")
    stored = json.loads(run.store.get(key))
    assert stored.pop("schema_version") == CURRENT[Form.STEP_RECORD]
    put(run.store, key, **stored)
    assert read_record(run.store, run.id, "preflight").step == "preflight"
    put(run.store, key, **stored, schema_version=99, news="of another form")
    for read in (lambda: read_record(run.store, run.id, "preflight"), lambda: read_records(run.store, run.id)):
        with pytest.raises(VersionError, match=r"steps/preflight\.json has schema_version = 99"):
            read()


def test_a_later_commit_is_refused_and_not_taken_for_a_damaged_one(local_store: LocalStore) -> None:
    key = "checkpoints/x/step-00000003/COMMIT"
    local_store.put(key, COMMIT_BEFORE)
    assert read_commit(local_store, "checkpoints/x", 3).world_size == 2
    put(local_store, key, schema_version=2, step=3)
    with pytest.raises(VersionError, match=r"COMMIT has schema_version = 2"):
        read_commit(local_store, "checkpoints/x", 3)


def test_what_training_stores_says_its_version(local_store: LocalStore) -> None:
    assert json.loads(TrainingState(step=1, seed=2).model_dump_json())["schema_version"] == 3
    assert json.loads(Commit(step=1, world_size=1, zero_stage=2, files=()).model_dump_json())["schema_version"] == 1
    write_summary(local_store, "checkpoints/x", {"steps": 4})
    assert json.loads(local_store.get("checkpoints/x/training.json")) == {"schema_version": 1, "steps": 4}
    assert read_summary(local_store, "checkpoints/x") == {"steps": 4}


def test_arms_of_before_versions_are_read(local_store: LocalStore) -> None:
    write_arms(local_store, "abl", ["abl-a", "abl-b"])
    assert json.loads(local_store.get("runs/abl/arms.json"))["schema_version"] == 1
    assert (arms_of(local_store, "abl"), parent_of(local_store, "abl-b")) == (["abl-a", "abl-b"], "abl")
    local_store.put("runs/abl/arms.json", b'["abl-a"]')
    put(local_store, "runs/abl-a/arm.json", parent="abl")
    assert (arms_of(local_store, "abl"), parent_of(local_store, "abl-a")) == (["abl-a"], "abl")
