"""A model is found by every name that a person has for it."""

from pathlib import Path

import pytest

from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, InputError
from mantis.generation.answering_models import ChatModel, FamilyModel
from mantis.runs.records import State, StepRecord, write_record
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_runs import open_tracked_run
from mantis.tracking.model_registry import register_model
from pipelines.models.find_model import find_model


@pytest.fixture
def finished_run(eval_run: Run, findable_model: Manifest) -> Run:
    return eval_run


def test_a_run_an_address_and_a_folder(finished_run: Run, local_store: LocalStore) -> None:
    folder = local_store.root / "models" / "abc"
    names = [finished_run.id, "models/abc", local_store.uri("models/abc"), str(folder)]
    for found in [find_model(local_store, name) for name in names]:
        assert isinstance(found, FamilyModel)
        assert found.manifest.key == "models/abc"
        assert found.settings == finished_run.recipe.model


def test_a_folder_outside_of_the_store(chat_model_folder: Path, local_store: LocalStore) -> None:
    assert isinstance(find_model(local_store, str(chat_model_folder)), ChatModel)


def test_a_registered_model(
    finished_run: Run, findable_model: Manifest, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    register_model(open_tracked_run(finished_run), finished_run, findable_model)
    for name in ("eval-test", "models:/eval-test", "models:/eval-test@newest", "models:/eval-test/1"):
        assert find_model(local_store, name).manifest.key == "models/abc"
    for name, problem in (
        ("models:/other@newest", "No registered model has the name 'other'"),
        ("models:/eval-test/7", "has no version 7"),
        ("models:/eval-test@best", "no version with the alias 'best'"),
        ("evaltest", "is no run, no registered model"),
        ("it's", "is no run, no registered model"),
    ):
        with pytest.raises(ConfigError, match=problem):
            find_model(local_store, name)


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("eval-rum", "Did you mean eval-run"),
        ("models/none", "no model in"),
        ("/nowhere", "no model in"),
        ("models/../nowhere", "no model in"),
        ("", "MODEL is empty"),
    ],
)
def test_a_name_that_means_nothing(finished_run: Run, local_store: LocalStore, named: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        find_model(local_store, named)


def test_a_run_without_a_model(finished_run: Run, local_store: LocalStore) -> None:
    record = StepRecord(step="convert", state=State.FAILED, started="2026-01-01T00:00:00", reason="no disk")
    write_record(local_store, finished_run.id, record)
    with pytest.raises(ConfigError, match="its step `convert` has no result"):
        find_model(local_store, finished_run.id)


def test_a_folder_without_a_model(local_store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        find_model(local_store, str(tmp_path / "empty"))
