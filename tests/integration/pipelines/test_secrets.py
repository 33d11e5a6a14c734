"""A whole run on a real MinIO with credentials in its environment: none of them is anywhere afterwards."""

import os
from pathlib import Path
from typing import Any

import pytest

from mantis.store.base import ObjectStore
from tests.fixtures.cli import Mantis

SECRETS = {
    "HF_TOKEN": "hf_0123456789abcdef",
    "MLFLOW_TRACKING_PASSWORD": "password-of-mlflow",
    "MANTIS_KFP_TOKEN": "token-of-kfp",
}
SMALL = (
    "data.generated_conversations=60",
    "training.max_steps=4",
    "training.global_batch_size=8",
    "evaluation.samples_per_skill=2",
    "evaluation.benchmarks=[demo-single]",
    "cluster.deploy=true",
    "cluster.image=mantis/train:1",
)


@pytest.fixture
def left(minio_store: ObjectStore, mantis: Mantis, tmp_path: Path) -> Any:
    """Name -> bytes of everything that a run leaves: objects, files, MLflow's database and artifacts, what it said."""
    given = [part for field in SMALL for part in ("--set", field)]
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environment |= {"MLFLOW_TRACKING_USERNAME": "somebody", **SECRETS}
    done = mantis("run", "demo", "--name", "whole", *given, "--store", minio_store.url, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {f"object {entry.key}": minio_store.get(entry.key) for entry in minio_store.list("")}
    found |= {f"file {path.relative_to(tmp_path)}": path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    return found | {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}


@pytest.mark.slow
def test_no_credential_is_left_anywhere(left: Any) -> None:
    kinds = {name.split("/")[0] for name in left}
    assert {"object checkpoints", "object models", "object reports", "object deployments", "object runs"} <= kinds
    (objects,) = [data for name, data in left.items() if name.endswith("/deployment.yaml")]
    assert b"kind: Deployment" in objects
    assert [name for name, data in left.items() if b"whole" in data], "a search that finds nothing proves nothing"
    assert any(name.endswith("mlflow.db") for name in left)
    assert any(name.endswith(".log") for name in left)
    for variable, secret in (SECRETS | {"AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"]}).items():
        assert [name for name, data in left.items() if secret.encode() in data] == [], variable
