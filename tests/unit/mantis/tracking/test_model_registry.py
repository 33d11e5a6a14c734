import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking.logged_models import ADDRESS_TAG, FINGERPRINT_TAG, LOADER, ScoredBenchmark
from mantis.tracking.mlflow_runs import open_tracked_run, record_run, tracking_uri
from mantis.tracking.model_registry import ALIAS, MODEL_TAG, register_model
from mantis.tracking.run_description import DatasetEntry
from tests.helpers.paths import root_of


def model_of(run: Run, fingerprint: str) -> Manifest:
    made_by = MadeBy(run="r", step="convert", revision=1, config_hash="c", code_version="v", image_digest="none")
    inputs = {"checkpoint": {"key": "checkpoints/c", "fingerprint": "trained"}}
    return Manifest(
        kind=ArtifactKind.MODEL, key=f"models/{fingerprint}", fingerprint=fingerprint, made_by=made_by, inputs=inputs
    )


def registered(run: Run, model: Manifest, scored: Sequence[ScoredBenchmark] = ()) -> str | None:
    return register_model(open_tracked_run(run), run, model, scored)


def test_a_model_has_one_version_and_the_alias_follows_the_newest(run: Run) -> None:
    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    first, second = model_of(run, "a" * 16), model_of(run, "b" * 16)
    assert [registered(run, model) for model in (first, first, second)] == ["1", "1", "2"]
    version = client.get_model_version_by_alias(run.recipe.name, ALIAS)
    assert str(version.version) == "2"
    assert version.tags[ADDRESS_TAG] == second.key
    assert version.tags[FINGERPRINT_TAG] == second.fingerprint
    assert version.tags["mantis.input.checkpoint"] == "trained"
    registered(run, first)
    assert str(client.get_model_version_by_alias(run.recipe.name, ALIAS).version) == "1"


def test_an_outage_is_said_and_not_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = replace(open_tracked_run(run), client=MlflowClient("http://127.0.0.1:9"))
    assert register_model(away, run, model_of(run, "c" * 16)) is None
    assert "The model is not registered in MLflow" in caplog.text


def test_a_model_that_moved_has_a_version_with_its_new_address(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server; MLflow cannot change the address of a version."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    moved = replace(run, store=LocalStore(tmp_path / "moved"))
    model = model_of(run, "a" * 16)
    assert [registered(each, model) for each in (run, moved, run, moved)] == ["1", "2", "1", "2"]
    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    found = client.search_model_versions(f"name = '{run.recipe.name}'")
    assert {version.tags[ADDRESS_TAG] for version in found} == {run.store.uri(model.key), moved.store.uri(model.key)}


def scored(benchmark: str, *accuracies: float, skills: tuple[str, ...] = ("compare", "coref")) -> ScoredBenchmark:
    rows: list[dict[str, Any]] = [
        {"benchmark": benchmark, "skill": skill, "samples": 500, "accuracy": accuracy, "low": 0.1, "high": 0.9}
        for skill, accuracy in zip(skills, accuracies, strict=True)
    ]
    return ScoredBenchmark(name=benchmark, digest=f"of {benchmark}" + "0" * 60, key="evaluations/x", rows=rows)


def test_scores_belong_to_the_model_and_to_the_dataset_of_their_benchmark(run: Run) -> None:
    tracked = open_tracked_run(run)
    scores = [scored("first", 0.25, 0.5), scored("second", 0.75, skills=("compare",))]
    for _ in range(2):  # finishing twice counts nothing twice
        registered(run, model_of(run, "a" * 16), scores)
    training = DatasetEntry(name="rows", digest="mixture", source="{}", context="training")
    record_run(tracked, scores={"score.first": 0.375}, tags={}, dataset=training, files=[])
    client = tracked.client
    version = client.get_model_version_by_alias(run.recipe.name, ALIAS)
    logged = client.get_logged_model(version.tags[MODEL_TAG])
    assert logged.status == "READY"
    assert logged.source_run_id == tracked.id
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [
        {"name": run.recipe.name, "version": str(version.version)}
    ]
    assert {each.key: (each.value, each.dataset_name) for each in logged.metrics} == {
        "score.first": (0.375, "first"),
        "score.second": (0.75, "second"),
        "score.mean": (0.5625, None),
    }
    shown = client.get_run(tracked.id)
    datasets = {(each.dataset.name, each.tags[0].value) for each in shown.inputs.dataset_inputs}
    assert datasets == {("first", "evaluation"), ("second", "evaluation"), ("rows", "training")}
    digests = {each.dataset.name: each.dataset.digest for each in shown.inputs.dataset_inputs}
    assert {each.dataset_digest for each in logged.metrics if each.dataset_name == "first"} == {digests["first"]}
    assert [each.model_id for each in shown.outputs.model_outputs] == [logged.model_id]
    assert len(client.get_metric_history(tracked.id, "score.first")) == 1
    registered(run, model_of(run, "a" * 16), [scored("first", 0.25, 0.75), scores[1]])
    assert len(client.get_metric_history(tracked.id, "score.first")) == 2
    assert len(client.get_metric_history(tracked.id, "score.second")) == 1


def test_the_entry_says_what_a_person_needs_and_mlflow_can_load_it(run: Run) -> None:
    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    model = model_of(run, "a" * 16)
    registered(run, model)
    assert "No scores yet" in client.get_model_version_by_alias(run.recipe.name, ALIAS).description
    registered(run, model, [scored("first", 0.25, 0.5)])
    text = client.get_model_version_by_alias(run.recipe.name, ALIAS).description
    assert "| first | coref | 500 | 50.0% | 10.0% to 90.0% |" in text
    assert f"`{model.key}`" in text
    assert 'mlflow.pyfunc.load_model("models:/demo/1")' in text
    assert yaml.safe_load(text.split("```yaml")[1].split("```")[0]) == yaml.safe_load(run.recipe.to_yaml())
    skills = tuple(f"skill {number}" for number in range(300))
    registered(run, model, [scored("first", *[0.5] * 300, skills=skills)])
    text = client.get_model_version_by_alias(run.recipe.name, ALIAS).description
    assert "300 rows" in text
    assert "`runs/test-run/recipe.yaml`" in text
    assert len(text) < 5000
    holds_no_code_and_no_address(run, model)


def holds_no_code_and_no_address(run: Run, model: Manifest) -> None:
    [folder] = (root_of(run.store) / "mlflow-artifacts" / "models").glob("*/artifacts")
    assert {file.name for file in folder.iterdir()} == {"MLmodel", "requirements.txt"}
    described = yaml.safe_load((folder / "MLmodel").read_text())
    [flavor] = described["flavors"].values()
    assert flavor["loader_module"] == LOADER
    assert callable(import_module(LOADER)._load_pyfunc)
    assert {"code", "data", "env"} & set(flavor) == set()
    assert flavor["config"]["store"] == ""  # the database lies in the store, and both may move
    assert (flavor["config"]["key"], flavor["config"]["fingerprint"]) == (model.key, model.fingerprint)
    assert str(root_of(run.store)) not in (folder / "MLmodel").read_text()
