"""The step `deploy`: its artifact is what `mantis model deploy` prints, and it is made once."""

import json

import pytest
from typer.testing import CliRunner

from components.serving.deployment.deployment_request import DeploymentRequest
from components.serving.step import deploy
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, commit_manifest, describe_files
from mantis.config.recipe import parse_recipe
from mantis.errors import ConfigError
from mantis.runs.records import State, read_record
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from pipelines.cli.main import app
from pipelines.models.model_deployment import deployment_of

IMAGE = "mantis/train:1"


@pytest.fixture
def in_bucket(findable_model: Manifest, local_store: LocalStore, minio_store: ObjectStore) -> Manifest:
    """A model in a bucket, with the run that made it."""
    for entry in local_store.list(""):
        minio_store.put_file(entry.key, local_store.root / entry.key)
    stored = findable_model.model_copy(update={"files": describe_files(minio_store, findable_model.key)})
    commit_manifest(minio_store, stored)
    return stored


def run_of(store: ObjectStore, image: str) -> Run:
    recipe = parse_recipe("name: demo", origin="test", overrides={"cluster.image": json.dumps(image)})
    return Run(id="demo-1", store=store, recipe=recipe)


def test_the_artifact_is_what_the_command_prints(
    in_bucket: Manifest, minio_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MANTIS_IMAGE", raising=False)
    run = run_of(minio_store, IMAGE)
    made = deploy(run, in_bucket, {})
    text = minio_store.get(f"{made.key}/deployment.yaml").decode()
    for named in ("eval-run", in_bucket.key, minio_store.uri(in_bucket.key)):
        done = CliRunner().invoke(app, ["model", "deploy", named, "--store", minio_store.url, "--image", IMAGE])
        assert (done.exit_code, done.stdout) == (0, text)
    assert made.kind is ArtifactKind.DEPLOYMENT
    assert deploy(run, in_bucket, {}) == made
    record = read_record(minio_store, run.id, "deploy")
    assert record is not None
    assert record.state is State.REUSED


def test_every_part_of_the_request_leads_to_another_artifact(
    in_bucket: Manifest, minio_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANTIS_IMAGE", "mantis/train:2")
    run, unnamed = run_of(minio_store, IMAGE), run_of(minio_store, "")
    made = [deploy(run, in_bucket, {}), deploy(run, in_bucket, {"gpus": 1}), deploy(unnamed, in_bucket, {})]
    assert len({each.key for each in made}) == 3
    texts = [minio_store.get(f"{each.key}/deployment.yaml").decode() for each in made]
    assert ["nvidia.com/gpu" in text for text in texts] == [False, True, False]
    assert ["image: mantis/train:2" in text for text in texts] == [False, False, True]


def test_a_failed_step_says_why(in_bucket: Manifest, minio_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANTIS_IMAGE", raising=False)
    with pytest.raises(ConfigError, match="A server needs an image"):
        deploy(run_of(minio_store, ""), in_bucket, {})
    record = read_record(minio_store, "demo-1", "deploy")
    assert record is not None
    assert (record.state, "A server needs an image" in record.reason) == (State.FAILED, True)


@pytest.mark.parametrize("kind", ["clip_vision_model", "llama", None])
def test_weights_that_answer_no_questions_about_images_are_refused(
    in_bucket: Manifest, minio_store: ObjectStore, kind: str | None
) -> None:
    key = ArtifactKind.SOURCE.address(base="some", revision="1")
    minio_store.put(f"{key}/config.json", json.dumps({"model_type": kind} if kind else {}).encode())
    source = in_bucket.model_copy(update={"kind": ArtifactKind.SOURCE, "key": key})
    commit_manifest(minio_store, source)
    asked = DeploymentRequest(image=IMAGE)
    with pytest.raises(ConfigError, match=f"of the kind {kind!r}, which answers no questions about images"):
        deployment_of(minio_store, key, asked)
    minio_store.put(f"{key}/config.json", b'{"model_type": "idefics2"}')
    assert key in deployment_of(minio_store, key, asked)


def test_what_is_no_model_of_the_store_is_refused(
    in_bucket: Manifest, minio_store: ObjectStore, local_store: LocalStore
) -> None:
    def said(named: str) -> str:
        done = CliRunner().invoke(app, ["model", "deploy", named, "--store", minio_store.url, "--image", IMAGE])
        assert done.exit_code == 1
        return " ".join(done.output.split())

    folder = local_store.root / "models" / "abc"
    assert "lies outside of" in said(str(folder))
    assert "mantis model import FOLDER" in said(str(folder))
    assert "is no run, no registered model and no model in" in said("models/none")
    assert "Did you mean eval-run" in said("eval-rum")
