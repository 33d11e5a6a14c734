from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_runs import tracking_uri
from mantis.tracking.model_registry import ALIAS, FINGERPRINT_TAG, register_model


def model_of(run: Run, fingerprint: str) -> Manifest:
    made_by = MadeBy(run="r", step="convert", revision=1, config_hash="c", code_version="v", image_digest="none")
    inputs = {"checkpoint": {"key": "checkpoints/c", "fingerprint": "trained"}}
    return Manifest(
        kind=ArtifactKind.MODEL, key=f"models/{fingerprint}", fingerprint=fingerprint, made_by=made_by, inputs=inputs
    )


def test_a_model_has_one_version_and_the_alias_follows_the_newest(run: Run) -> None:
    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    first, second = model_of(run, "a" * 16), model_of(run, "b" * 16)
    assert [register_model(run, model) for model in (first, first, second)] == ["1", "1", "2"]
    version = client.get_model_version_by_alias(run.recipe.name, ALIAS)
    assert str(version.version) == "2"
    assert version.source == second.key
    assert version.tags[FINGERPRINT_TAG] == second.fingerprint
    assert version.tags["mantis.input.checkpoint"] == "trained"
    register_model(run, first)
    assert str(client.get_model_version_by_alias(run.recipe.name, ALIAS).version) == "1"


def test_an_outage_is_said_and_not_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert register_model(replace(run, id="away"), model_of(run, "c" * 16)) is None
    assert "The model is not registered in MLflow" in caplog.text


def test_a_model_that_moved_has_a_version_with_its_new_address(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server; MLflow cannot change the address of a version."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    moved = replace(run, store=LocalStore(tmp_path / "moved"))
    model = model_of(run, "a" * 16)
    assert [register_model(each, model) for each in (run, moved, run, moved)] == ["1", "2", "1", "2"]
    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    found = client.search_model_versions(f"name = '{run.recipe.name}'")
    assert {version.source for version in found} == {run.store.uri(model.key), moved.store.uri(model.key)}
