"""A model goes to a hub that is a real HTTP server here: whole, in one commit, and nothing of it without `--yes`."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from typer.testing import CliRunner, Result

from components.conversion.model_card import model_card
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest, describe_files
from mantis.config.recipe import Recipe
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form, versioned
from mantis.store.local import LocalStore
from pipelines.cli.main import app
from pipelines.execution.preflight import keep_recipe
from tests.helpers.hub_server import TOKEN
from tests.helpers.upload_hub import UploadHub, upload_hub

TARGET = "hf://team/mantis-demo"
WEIGHTS = {f"model-{number}.safetensors": bytes([number]) * 5000 for number in range(3)}
Publish = Callable[..., Result]


def artifact(store: LocalStore, kind: ArtifactKind, key: str, files: dict[str, bytes], **more: object) -> Manifest:
    for name, data in files.items():
        store.put(f"{key}/{name}", data)
    made_by = MadeBy(run="test-run", step="x", revision=1, config_hash="", code_version="v1", image_digest="")
    manifest = Manifest.model_validate(
        {"kind": kind, "key": key, "fingerprint": key.rpartition("/")[2], "made_by": made_by, **more}
    ).model_copy(update={"files": describe_files(store, key)})
    commit_manifest(store, manifest)
    return manifest


def converted(run: Run, fingerprint: str = "abc") -> Manifest:
    """A model as `convert` leaves it, made from a checkpoint, with scores on one benchmark."""
    store = run.store
    assert isinstance(store, LocalStore)
    keep_recipe(store, run.id, run.recipe)
    checkpoint = artifact(store, ArtifactKind.CHECKPOINT, "checkpoints/trained", {"COMMIT": b"{}"})
    card = model_card(run, checkpoint, parameters=1000, difference=2e-7, merged=False)
    files = WEIGHTS | {"config.json": b"{}", "README.md": card.encode()}
    inputs = {"checkpoint": checkpoint.reference()}
    summary = {"largest_logit_difference": 2e-7, "precision": "fp32", "step": 3}
    key = ArtifactKind.MODEL.address(fingerprint=fingerprint)
    model = artifact(store, ArtifactKind.MODEL, key, files, inputs=inputs, summary=summary)
    rows = [
        {"benchmark": "first", "skill": skill, "samples": 500, "accuracy": 0.5, "low": 0.4, "high": 0.6, "chance": 0.25}
        for skill in ("compare", "coref")
    ]
    where = ArtifactKind.EVALUATION.address(model=model.fingerprint, benchmark="first", fingerprint="eval1")
    scores = json.dumps(versioned(Form.SCORES, {"scores": rows})).encode()
    artifact(store, ArtifactKind.EVALUATION, where, {"scores.json": scores}, inputs={"model": model.reference()})
    return model


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    with upload_hub({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Xet's own protocol needs a server of its own; the older one does without.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def publish(run: Run, local_store: LocalStore, hub: UploadHub) -> Publish:
    converted(run)

    def call(*words: str, named: str = "models/abc", target: str = TARGET) -> Result:
        return CliRunner().invoke(app, ["model", "publish", named, target, "--store", local_store.url, *words])

    return call


def test_the_first_call_sends_nothing(publish: Publish, hub: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    done = publish()
    assert done.exit_code == 0, done.output
    assert "hf://team/mantis-demo  new, private" in done.output
    assert "model-0.safetensors" in done.output
    assert "provenance/lineage.json" in done.output
    assert "2 rows of scores" in done.output
    assert "Nothing was sent" in done.output
    assert (hub.files, hub.commits, hub.put) == ({}, [], [])


def test_card_licence_lineage_proof_and_scores_go_along(
    publish: Publish, hub: UploadHub, local_store: LocalStore, run: Run
) -> None:
    done = publish("--yes")
    assert done.exit_code == 0, done.output
    assert f"{hub.url}/team/mantis-demo/commit/" in done.output
    assert hub.private is True
    assert len(hub.commits) == 1
    for name, data in {**WEIGHTS, "config.json": b"{}"}.items():
        assert hub.files[name] == data
    _, front, text = hub.files["README.md"].decode().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "apache-2.0"
    [results] = metadata["model-index"]
    measured = {each["metrics"][0]["name"]: each["metrics"][0]["value"] for each in results["results"]}
    assert measured == {"accuracy, compare": 0.5, "accuracy, coref": 0.5}
    assert 'from_pretrained("team/mantis-demo")' in text
    assert "FOLDER" not in text
    assert "| first | coref | 500 | 50.0% | 40.0% to 60.0% | 25.0% |" in text
    beside = {
        name: json.loads(hub.files[f"provenance/{name}.json"]) for name in ("lineage", "proof", "scores", "manifest")
    }
    assert [(link["kind"], link["fingerprint"]) for link in beside["lineage"]] == [
        ("model", "abc"), ("checkpoint", "trained"),
    ]  # fmt: skip
    assert beside["proof"]["largest_logit_difference"] == 2e-7
    hashes = beside["proof"]["sha256"]
    assert all(hashlib.sha256(data).hexdigest() == hashes[name] for name, data in WEIGHTS.items())
    assert [row["skill"] for row in beside["scores"]] == ["compare", "coref"]
    assert beside["manifest"]["fingerprint"] == "abc"
    assert yaml.safe_load(hub.files["provenance/recipe.yaml"]) == yaml.safe_load(run.recipe.to_yaml())
    assert not any(str(local_store.root).encode() in data for data in hub.files.values())


def test_a_stopped_upload_continues_and_a_whole_one_sends_nothing(publish: Publish, hub: UploadHub) -> None:
    hub.largest_take = 2
    done = publish("--yes", "--public")
    assert done.exit_code == 1
    assert "broke off" in done.output
    assert "Traceback" not in done.output
    assert hub.files == {}
    kept = set(hub.blobs)
    assert len(kept) == 2
    hub.largest_take = 0
    done = publish("--yes", "--public")
    assert done.exit_code == 0, done.output
    assert hub.private is False
    assert len(hub.put) == len(set(hub.put)) > 2  # no large file was sent twice
    done = publish("--yes")
    assert "already holds all of it" in done.output
    assert len(hub.commits) == 1


def test_a_repository_with_other_files_is_replaced_on_request_alone(publish: Publish, hub: UploadHub) -> None:
    hub.names.add("team/mantis-demo")
    hub.files = {"old.safetensors": b"x" * 200, "config.json": b"[]", ".gitattributes": b"*"}
    before = dict(hub.files)
    shown = publish()
    assert "exists" in shown.output
    done = publish("--yes")
    assert done.exit_code == 1
    assert "already holds 2 other files: config.json, old.safetensors" in done.output
    assert hub.files == before
    done = publish("--yes", "--replace")
    assert done.exit_code == 0, done.output
    assert hub.files["config.json"] == b"{}"
    assert hub.files[".gitattributes"] == b"*"
    assert "old.safetensors" not in hub.files


@pytest.mark.parametrize(
    "target", ["team/demo", "hf://demo", "hf://team/de mo", "hf://datasets/team/demo", "hf://team/a--b", "hf://-x/y"]
)
def test_a_wrong_name(publish: Publish, target: str) -> None:
    done = publish(target=target)
    assert done.exit_code == 1
    assert "is no model repository of the hub" in done.output


def test_a_token_that_is_missing_or_may_not_write(
    publish: Publish, hub: UploadHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = publish("--yes", target="hf://others/demo")
    assert done.exit_code == 1
    assert "does not let this token write there: others/demo" in done.output
    monkeypatch.setenv("HF_TOKEN", "wrong")
    done = publish("--yes")
    assert done.exit_code == 1
    assert "refuses the token" in done.output
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    done = publish("--yes")
    assert done.exit_code == 1
    assert "There is no token of the hub" in done.output
    assert hub.commits == []


def test_a_hub_that_is_away(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = publish()
    assert done.exit_code == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.output


def test_a_damaged_model_is_not_published(publish: Publish, hub: UploadHub, local_store: LocalStore) -> None:
    local_store.put("models/abc/model-1.safetensors", b"y" * 5000)
    done = publish("--yes")
    assert done.exit_code == 1
    assert "damaged" in done.output
    assert hub.commits == []


def test_a_model_that_no_run_converted(publish: Publish, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    done = publish(named=str(tmp_path))
    assert done.exit_code == 1
    assert "neither a card nor a proof" in done.output


def test_the_name_that_a_licence_requires_and_addresses_in_the_card(
    publish: Publish, hub: UploadHub, run: Run, demo_recipe: Recipe
) -> None:
    model = demo_recipe.model.model_copy(update={"base": "llama3-8b-instruct", "from_scratch": None})
    data = demo_recipe.data.model_copy(update={"source": "/data/ada/rows"})
    recipe = demo_recipe.model_copy(update={"model": model, "data": data})
    converted(replace(run, recipe=recipe, id="test-run"), "abd")
    done = publish(named="models/abd")
    assert done.exit_code == 1
    assert "begins with 'Llama 3'" in done.output
    done = publish(named="models/abd", target="hf://team/Llama-3-mantis")
    assert done.exit_code == 0, done.output
    assert "META LLAMA 3" in done.output.upper()
    assert "data.source = /data/ada/rows" in done.output
