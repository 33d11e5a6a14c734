"""`mantis gc` as a person calls it."""

from pathlib import Path
from types import SimpleNamespace

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest
from mantis.runs.records import read_record
from mantis.store.local import LocalStore
from pipelines.component import existing_model
from pipelines.execution.preflight import preflight
from tests.fixtures.cli import Mantis


def test_unfinished_work_of_today_is_listed_and_kept(mantis: Mantis, local_store: LocalStore, tmp_path: Path) -> None:
    local_store.put("models/4567/half.safetensors", b"")
    given = ("gc", "--delete", "--store", local_store.url)
    done = mantis(*given, cwd=tmp_path)
    assert "models/4567" in done.stdout
    assert "unfinished, kept" in done.stdout
    assert local_store.stat("models/4567/half.safetensors")
    done = mantis(*given, "--keep-hours", "0", cwd=tmp_path)
    assert "deleted 1 results" in done.stdout
    assert local_store.stat("models/4567/half.safetensors") is None


def test_the_record_of_an_evaluation_names_its_model(local_store: LocalStore, tmp_path: Path) -> None:
    made_by = MadeBy(run="", step="import-model", revision=1, config_hash="", code_version="", image_digest="")
    uri = local_store.uri("models/0123")
    commit_manifest(
        local_store, Manifest(kind=ArtifactKind.MODEL, key="models/0123", fingerprint="0123", made_by=made_by)
    )
    run = preflight("demo", {}, "eval", local_store.url, model=uri)
    model = SimpleNamespace(path=str(tmp_path / "manifest.json"), metadata={})
    existing_model.python_func(run.id, local_store.url, uri, model)
    assert read_record(local_store, run.id, "model").key == "models/0123"
