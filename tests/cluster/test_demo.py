"""The whole DAG against the cluster: steps here, the ranks as a TrainJob, everything in MinIO and MLflow."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mantis.store.opening import open_store
from tests.helpers.demo_scores import assert_above_chance
from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT

SECONDS = 1500
SECRET_WORDS = {
    "mantis-minio-root/MINIO_ROOT_PASSWORD",
    "mantis-mlflow/MLFLOW_TRACKING_PASSWORD",
    "mantis-mlflow-server/MLFLOW_AUTH_ADMIN_PASSWORD",
    "mantis-mlflow-server/MLFLOW_FLASK_SERVER_SECRET_KEY",
    "mantis-postgresql/POSTGRES_PASSWORD",
    "mantis-server/MANTIS_API_KEY",
    "mantis-store/AWS_SECRET_ACCESS_KEY",
    "mantis-store-read/AWS_SECRET_ACCESS_KEY",
    "mantis-store-results/AWS_SECRET_ACCESS_KEY",
}
TWO_PODS = {"training.launcher": "trainjob", "training.nodes": "2", "training.gpus_per_node": "1"}
LITTLE = TWO_PODS | {
    "data.skills": "[single]",
    "data.generated_conversations": "160",
    "training.epochs": "1",
    "training.log_every": "1",
    "evaluation.samples_per_skill": "10",
    "evaluation.benchmarks": "[demo-single]",
}


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        pytest.param(LITTLE, "2", id="little"),
        pytest.param(TWO_PODS, "2,500", id="own-size", marks=pytest.mark.slow),
    ],
)
def test_a_job_that_a_person_applied_is_followed_to_the_report(
    kube: Kube,
    services: dict[str, str],
    image: str,
    mlflow_contents: Callable[[], Iterator[tuple[str, bytes]]],
    tmp_path: Path,
    settings: dict[str, str],
    steps: str,
) -> None:
    """Data from here, the job applied with kubectl; `mantis run` follows it, converts, evaluates and reports.

    The demo in its own size also clears its bars. Only it takes so long that the load of its pods is measured.
    """
    store = f"s3://mantis/demo-{uuid4().hex[:8]}"
    given = ["demo", "--store", store, *(f"--set={name}={value}" for name, value in settings.items())]
    given.append(f"--set=cluster.image={image}")
    mantis("data", "prepare", *given, folder=tmp_path)
    job = mantis("job", *given, "--image", image, folder=tmp_path)
    kube.kubectl("apply", "-f", "-", stdin=job)
    said = mantis("run", *given, "--json", folder=tmp_path)
    logs = "\n".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "was applied for this run and is followed" in logs
    assert re.search(rf"training: [\d,]+ of {steps} steps .* loss", logs)  # what `kubectl logs` shows
    summary = json.loads(Path(said.splitlines()[-1]).read_text())
    assert "trainjob" not in kube.kubectl("-n", "mantis", "get", "trainjobs", "-o", "name")
    metrics = in_mlflow(summary["run"], store)
    if settings is TWO_PODS:
        assert_above_chance(summary["scores"])
        assert len({name.split("/")[1] for name in metrics if name.startswith("system/")}) == 2  # one for each pod
    left = {"job": job.encode(), "stdout": said.encode(), "launcher": logs.encode(), **dict(mlflow_contents())}
    left |= {f"object {entry.key}": open_store(store).get(entry.key) for entry in open_store(store).list("")}
    assert not list(open_store(store).list("deployments")), "nobody asked for a server"
    left |= of_namespace(kube)
    no_credential_is_in(left, kube, summary["run"])


@pytest.mark.timeout(SECONDS)
def test_the_whole_dag_from_one_command(kube: Kube, services: dict[str, str], image: str, tmp_path: Path) -> None:
    """In little, to its report: nobody applies anything, and nothing of the job is left."""
    store = f"s3://mantis/little-{uuid4().hex[:8]}"
    little = LITTLE | {"cluster.image": image, "cluster.deploy": "true"}
    given = [f"--set={name}={value}" for name, value in little.items()]
    said = mantis("run", "demo", "--store", store, *given, "--json", folder=tmp_path)
    logs = "\n".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert re.search(r"TrainJob mantis/train-demo-[0-9a-f]{8}-[0-9a-f]{8} was created", logs)
    summary = json.loads(Path(said.splitlines()[-1]).read_text())
    assert [row["skill"] for row in summary["scores"]] == ["single"]
    assert open_store(store).get(f"reports/{summary['run']}/report.html").startswith(b"<!doctype html>")
    in_mlflow(summary["run"], store)
    (objects,) = [
        entry.key for entry in open_store(store).list("deployments") if entry.key.endswith("/deployment.yaml")
    ]
    text = open_store(store).get(objects).decode()
    assert text == mantis("model", "deploy", summary["run"], "--store", store, "--image", image, folder=tmp_path)
    assert "trainjob" not in kube.kubectl("-n", "mantis", "get", "trainjobs", "-o", "name")


def of_namespace(kube: Any) -> dict[str, bytes]:
    """What anybody may read there: objects that are no Secrets, and what the pods have said."""
    kinds = "pods,jobs,statefulsets,configmaps,trainjobs,jobsets,events"
    found = {"objects": kube.kubectl("-n", "mantis", "get", kinds, "-o", "json").encode()}
    for pod in kube.kubectl("-n", "mantis", "get", "pods", "-o", "name").split():
        found[f"log {pod}"] = kube.kubectl("-n", "mantis", "logs", pod, check=False).encode()
    return found


def no_credential_is_in(left: dict[str, bytes], kube: Any, run: str) -> None:
    """Of what is in Secrets, the servers' own passwords among it, nothing is anywhere else."""
    secrets = kube.core.list_namespaced_secret("mantis", label_selector="app.kubernetes.io/part-of=mantis-kfp").items
    words = {
        f"{secret.metadata.name}/{key}": base64.b64decode(value)
        for secret in secrets
        for key, value in secret.data.items()
        if key.endswith(("PASSWORD", "SECRET_ACCESS_KEY", "SECRET_KEY", "API_KEY"))
    }
    assert words.keys() == SECRET_WORDS
    assert sum(run.encode() in data for data in left.values()) > 10, "a search that finds nothing proves nothing"
    for name, word in words.items():
        assert [where for where, data in left.items() if word in data] == [], name


def mantis(*arguments: str, folder: Path) -> str:
    """What a command line of `mantis` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MANTIS_LOG_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs[-4000:]
    return done.stdout


def in_mlflow(run: str, store: str) -> set[str]:
    """The run is finished there, with its curve, its scores and its report; names of its metrics."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("mantis")
    wanted = f"tags.`mantis.run` = '{run}' and tags.`mantis.store` = '{store}'"
    (found,) = client.search_runs([experiment.experiment_id], filter_string=wanted)
    assert found.info.status == "FINISHED"
    assert {"train/loss", "score.mean"} <= set(found.data.metrics)
    assert "report.html" in {item.path for item in client.list_artifacts(found.info.run_id)}
    return set(found.data.metrics)
