import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mantis.config.recipe import parse_recipe
from mantis.errors import ConfigError, IntegrityError, StoreError
from mantis.runs.arms import write_arms
from mantis.runs.records import STOPPED, State, StepRecord
from mantis.runs.step_runner import Run
from mantis.store import s3
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_runs import RUN_TAG, Status, tracking_uri
from pipelines.execution import finalize
from pipelines.execution.ablation_runs import close_arms, finish_arms, preflight_arms
from pipelines.execution.preflight import keep_recipe, preflight
from pipelines.execution.resolve import resolve_run
from tests.fixtures.api_server import ApiServer, Kubeconfig
from tests.helpers.loopback import free_port

ARMS = "name: x\ntraining: {launcher: trainjob}\ndata: {skills: [single, multi]}\n"


@pytest.fixture
def nowhere(kubeconfig: Kubeconfig) -> None:
    """KUBECONFIG of an API server that is away."""
    kubeconfig(free_port())


def test_a_cluster_that_is_away_keeps_no_run_from_being_closed(
    nowhere: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(finalize, "CLUSTER_SECONDS", 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    recipe = parse_recipe("name: x\ntraining: {launcher: trainjob}\n", origin="test")
    run = Run(id="closed", store=LocalStore(tmp_path / "store"), recipe=recipe)
    finalize.close_run(run, Status.KILLED)
    assert run.store.stat("runs/closed/summary.json")
    assert "The API server does not answer" in caplog.text


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """An ablation of two arms as preflight leaves it, with MLflow beside the store."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    run = Run(id="abl", store=LocalStore(tmp_path / "store"), recipe=parse_recipe(ARMS, origin="test"))
    for one in ("abl", "abl-single", "abl-multi"):
        run.store.put(f"runs/{one}/recipe.yaml", run.recipe.to_yaml().encode())
    write_arms(run.store, "abl", ["abl-single", "abl-multi"])
    return run


def record(run: Run, of: str, step: str, state: State, reason: str = "") -> None:
    text = StepRecord(step=step, state=state, started="2026-01-01", reason=reason).model_dump_json()
    run.store.put(f"runs/{of}/steps/{step}.json", text.encode())


def in_mlflow(run: Run) -> dict[str, str]:
    """What MLflow calls the end of every run in it."""
    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {one.data.tags[RUN_TAG]: one.info.status for one in found}


def test_a_cluster_without_trainer_keeps_no_run_from_being_closed(
    api_server: ApiServer, parent: Run, caplog: pytest.LogCaptureFixture
) -> None:
    api_server.trainer = False
    finalize.close_run(parent, Status.KILLED)
    assert in_mlflow(parent) == {"abl": "KILLED"}
    assert "has no TrainJobs" in caplog.text


def test_what_mlflow_refuses_leaves_no_run_open(
    parent: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(finalize, "record_run", lambda *_, **__: MlflowClient("sqlite://").get_run("nobody"))
    run = replace(parent, recipe=parse_recipe("name: x\n", origin="test"))
    finalize.close_run(run, Status.FAILED)
    assert in_mlflow(run) == {"abl": "FAILED"}
    assert "MLflow did not take all of the run" in caplog.text


@pytest.fixture
def store_away(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(s3, "RETRIES", 0)
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(f"AWS_{name}", value)
    return "s3://mantis"


def test_jobs_are_deleted_while_the_store_is_away(api_server: ApiServer, store_away: str) -> None:
    api_server.has("train-0123", "mine", store_away)
    api_server.has("train-mine", "mine", store_away)  # as a person applied it
    with pytest.raises(StoreError):
        finalize.finish("demo", {"training.launcher": "trainjob"}, "mine", store_away)
    assert api_server.deleted == ["train-0123"]


def test_jobs_of_every_arm_are_deleted_while_the_store_is_away(api_server: ApiServer, store_away: str) -> None:
    for arm in ("abl-single", "abl-multi"):
        api_server.has(f"train-of-{arm}", arm, store_away)
    with pytest.raises(StoreError):
        finish_arms("demo", {"training.launcher": "trainjob", "data.skills": "[single,multi]"}, "abl", store_away)
    assert api_server.deleted == ["train-of-abl-single", "train-of-abl-multi"]


def test_a_run_that_was_refused_is_closed_in_neither_pipeline(
    local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    finalize.finish("demo", {}, "mine", local_store.url)
    finish_arms("demo", {"data.skills": "[single,multi]"}, "mine", local_store.url)
    assert caplog.messages.count("No run was started") == 2
    assert not list(local_store.list("runs"))


def test_a_run_that_deploys_is_whole_with_the_step_deploy(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    asked = ("demo", {"cluster.deploy": "true"}, "mine", local_store.url)
    recipe = resolve_run(*asked)[1]
    run = Run(id="mine", store=local_store, recipe=recipe)
    keep_recipe(local_store, run.id, recipe)

    def status() -> str:
        finalize.finish(*asked)
        return str(json.loads(local_store.get(run.key("summary.json")))["status"])

    record(run, "mine", "report", State.DONE)
    assert status() == Status.KILLED
    record(run, "mine", "deploy", State.DONE)
    assert status() == Status.FINISHED


def test_the_run_that_has_the_name_is_left_alone(
    api_server: ApiServer, local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    """preflight refuses another recipe under its name; what follows must not end it, nor its job."""
    running = parse_recipe("name: x\ntraining: {launcher: trainjob}\n", origin="test")
    local_store.put("runs/mine/recipe.yaml", running.to_yaml().encode())
    api_server.has("train-0123", "mine", local_store.url)
    asked = ("demo", {"training.launcher": "trainjob"}, "mine", local_store.url)
    with pytest.raises(ConfigError, match="is the name of a run with another recipe"):
        preflight(*asked)
    finalize.finish(*asked)
    assert "No run was started" in caplog.text
    assert api_server.deleted == []
    assert {entry.key for entry in local_store.list("runs")} == {"runs/mine/recipe.yaml"}


def test_the_run_that_has_an_arms_name_is_left_alone(
    api_server: ApiServer, local_store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    running = parse_recipe("name: x\ntraining: {launcher: trainjob}\n", origin="test")
    local_store.put("runs/abl-single/recipe.yaml", running.to_yaml().encode())
    api_server.has("train-0123", "abl-single", local_store.url)
    asked = ("demo", {"training.launcher": "trainjob", "data.skills": "[single,multi]"}, "abl", local_store.url)
    with pytest.raises(
        ConfigError, match=r"mantis_run \(--name\) = 'abl-single' is the name of a run with another recipe"
    ):
        preflight_arms(*asked)
    finish_arms(*asked)
    assert "No run was started" in caplog.text
    assert api_server.deleted == []
    assert {entry.key for entry in local_store.list("runs")} == {"runs/abl-single/recipe.yaml"}


def test_an_arm_that_cannot_be_closed_keeps_no_other_open(api_server: ApiServer, parent: Run) -> None:
    api_server.has("train-of-multi", "abl-multi", parent.store.url)
    parent.store.put("runs/abl-single/steps/train.json", b"cut off")
    with pytest.raises(IntegrityError, match=r"train\.json is not JSON"):
        close_arms(parent)
    assert api_server.deleted == ["train-of-multi"]
    assert in_mlflow(parent) == {"abl": "KILLED", "abl-multi": "KILLED"}


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        (f"{STOPPED} with exit code 143.", {"abl-single": "FINISHED", "abl-multi": "KILLED", "abl": "KILLED"}),
        ("The loss is nan.", {"abl-single": "FINISHED", "abl-multi": "FAILED", "abl": "FAILED"}),
        (
            "TrainJob mantis/train-1a was deleted while it ran.",  # from outside, while its launcher followed it
            {"abl-single": "FINISHED", "abl-multi": "FAILED", "abl": "FAILED"},
        ),
    ],
)
def test_an_ablation_that_somebody_ended_is_killed_and_one_with_an_arm_that_failed_is_failed(
    api_server: ApiServer, parent: Run, reason: str, ends: dict[str, str]
) -> None:
    record(parent, "abl-single", "report", State.DONE)
    record(parent, "abl-multi", "train", State.FAILED, reason)
    close_arms(parent)
    assert in_mlflow(parent) == ends
