from typing import Any

import pytest

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.errors import IntegrityError, TrainingError
from mantis.runs.lineage import find_artifact, walk
from mantis.runs.records import State, read_record
from mantis.runs.step_runner import Run, StepSpec, component_main, record_existing, recorded, run_step


def make(
    run: Run,
    step: str,
    *,
    inputs: dict[str, Manifest] | None = None,
    config: dict[str, Any] | None = None,
    revision: int = 1,
    data: bytes = b"data",
) -> tuple[Manifest, list[str]]:
    task = StepSpec(
        step=step,
        kind=ArtifactKind.DATASET,
        revision=revision,
        config=config or {},
        inputs=inputs or {},
        parts={"subset": step},
    )
    calls = []

    def work(prefix: str) -> Any:
        calls.append(prefix)
        run.store.put(f"{prefix}/object", data)
        return {"rows": 1}

    return run_step(run, task, work), calls


def test_a_result_is_made_once(run: Run) -> None:
    first, made = make(run, "prepare")
    again, reused = make(run, "prepare")
    assert len(made) == 1
    assert reused == []
    assert again == first
    assert read_record(run.store, run.id, "prepare").state is State.REUSED


def test_config_revision_and_inputs_each_change_the_address(run: Run) -> None:
    base, _ = make(run, "prepare")
    config, _ = make(run, "prepare", config={"x": 1})
    revision, _ = make(run, "prepare", revision=2)
    inputs, _ = make(run, "prepare", inputs={"a": base})
    assert len({base.key, config.key, revision.key, inputs.key}) == 4


def test_a_failure_commits_nothing_and_is_recorded(run: Run) -> None:
    task = StepSpec(step="train", kind=ArtifactKind.CHECKPOINT, revision=1, config={})

    def work(prefix: str) -> None:
        run.store.put(f"{prefix}/half", b"half")
        raise TrainingError("rank 1 died.", remedy="Run it again.")

    for attempt in (1, 2):
        with pytest.raises(TrainingError):
            run_step(run, task, work)
        record = read_record(run.store, run.id, "train")
        assert record.state is State.FAILED
        assert record.reason == "rank 1 died. Run it again."
        assert record.attempts == attempt
    assert read_manifest(run.store, task.address()) is None


def test_an_error_of_ours_ends_a_component_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, component_main():
        raise TrainingError("rank 1 died.", remedy="Run it again.")
    assert ended.value.code == 1
    said = capfd.readouterr().err
    assert "rank 1 died. Run it again." in said
    assert "Traceback" not in said


def test_a_remedy_in_kfp_names_the_fields_of_the_form(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = TrainingError("No.", remedy="Add --set training.nodes=1, or choose another --name.")
    hint = "On KFP's page, clone the run, and fill in nodes for training.nodes and mantis_run for --name."
    for pod, shown in (("", False), ("train-1", True)):
        monkeypatch.delenv("KFP_POD_NAME", raising=False)
        if pod:
            monkeypatch.setenv("KFP_POD_NAME", pod)
        with pytest.raises(SystemExit), component_main():
            raise error
        assert (hint in capfd.readouterr().err) is shown
    with pytest.raises(SystemExit), component_main():
        raise TrainingError("Rank 1 was silent for training.hang_timeout_seconds.", remedy="Run it again.")
    assert "KFP's page" not in capfd.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), component_main():
        _ = 1 / 0


def test_steps_without_artifact_are_recorded(run: Run) -> None:
    with recorded(run, "preflight"):
        assert read_record(run.store, run.id, "preflight").state is State.STARTED
    assert read_record(run.store, run.id, "preflight").state is State.DONE


def test_what_a_run_takes_from_the_store_is_named_by_its_record(run: Run) -> None:
    made, _ = make(run, "prepare")
    assert record_existing(run, "model", lambda: made) == made
    record = read_record(run.store, run.id, "model")
    assert (record.state, record.key, record.fingerprint) == (State.REUSED, made.key, made.fingerprint)

    def nothing() -> Manifest:
        raise TrainingError("nothing there.")

    with pytest.raises(TrainingError):
        record_existing(run, "model", nothing)
    assert read_record(run.store, run.id, "model").state is State.FAILED


def test_lineage_walks_to_the_root_and_finds_a_changed_byte(run: Run) -> None:
    source, _ = make(run, "source")
    middle, _ = make(run, "middle", inputs={"source": source})
    last, _ = make(run, "last", inputs={"middle": middle})
    assert find_artifact(run.store, last.key + "/object") == last
    chain = list(walk(run.store, last))
    assert [(link.role, link.depth) for link in chain] == [("dataset", 0), ("middle", 1), ("source", 2)]
    assert not any(link.problems for link in chain)

    key = source.key + "/object"
    run.store.put(key, b"dat!")
    problems = [problem for link in walk(run.store, last) for problem in link.problems]
    assert problems == [f"{source.key}/object was changed: its SHA-256 is not the one recorded"]
    run.store.delete(key)
    problems = [problem for link in walk(run.store, last) for problem in link.problems]
    assert problems == [f"{source.key}/object is missing"]


def test_lineage_finds_a_missing_input(run: Run) -> None:
    source, _ = make(run, "source")
    last, _ = make(run, "last", inputs={"source": source})
    run.store.delete(source.key + "/manifest.json")
    problems = [problem for link in walk(run.store, last) for problem in link.problems]
    assert len(problems) == 1
    assert source.key in problems[0]


def test_a_manifest_of_another_schema_is_refused(run: Run) -> None:
    made, _ = make(run, "prepare")
    prefix = made.key
    run.store.put(f"{prefix}/manifest.json", b'{"schema_version": 2}')
    with pytest.raises(IntegrityError, match="schema version 1"):
        read_manifest(run.store, prefix)
