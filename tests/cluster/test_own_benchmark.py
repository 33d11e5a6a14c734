"""A made-up benchmark from outside of the package: run from here, then evaluated in a pod that has neither file."""

import json
import shutil
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mantis.runs.step_runner import open_run
from mantis.store.opening import open_store
from tests.cluster.test_demo import LITTLE, mantis
from tests.cluster.test_image import SECURITY
from tests.fixtures.own_benchmark import write_pets
from tests.helpers.kubectl import Kube

SECONDS = 1200
LOCAL = {"training.launcher": "local", "training.nodes": "1", "training.gpus_per_node": "2"}


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_a_made_up_benchmark_runs_here_and_in_a_pod(
    kube: Kube, services: dict[str, str], image: str, tmp_path: Path
) -> None:
    store = f"s3://mantis/own-{uuid4().hex[:8]}"
    file = write_pets(tmp_path / "mine")
    little = LITTLE | {"cluster.image": image, "evaluation.benchmarks": f"[demo-single, {file}]"}
    given = [f"--set={name}={value}" for name, value in little.items()]
    said = mantis("run", "demo", "--store", store, *given, "--json", folder=tmp_path)
    summary = json.loads(Path(said.splitlines()[-1]).read_text())
    assert {(row["benchmark"], row["samples"]) for row in summary["scores"]} >= {("pets", 4)}
    shutil.rmtree(file.parent)

    stored = open_run(summary["run"], store)
    assert str(file.parent) not in stored.recipe.to_yaml()
    revision = stored.recipe.evaluation.own_benchmarks["pets"]["stored"]
    opened = open_store(store)
    assert opened.stat(f"sources/benchmarks/pets/{revision}/files/test.json") is not None
    recipe = f"{store}/runs/{summary['run']}/recipe.yaml"
    # The pod may start no job: it takes the training from the store, and asks every question as one merged image.
    changes = LOCAL | {"evaluation.layout": "merge"}
    given = [f"--set={name}={value}" for name, value in changes.items()]
    log = evaluated_in_a_pod(kube, image, ["run", recipe, f"--store={store}", *given])
    assert "report  s3://" in log
    names = [entry.key for entry in opened.list("evaluations") if "/pets/" in entry.key]
    assert sum(name.endswith("/scores.json") for name in names) == 2


def evaluated_in_a_pod(kube: Kube, image: str, arguments: list[str]) -> str:
    """Run `mantis` as a Job beside the store, and return its log."""
    from kubernetes import client

    core, batch = client.CoreV1Api(), client.BatchV1Api()
    name = f"own-{uuid4().hex[:8]}"
    secrets = [{"secretRef": {"name": secret}} for secret in ("mantis-store", "mantis-mlflow")]
    container: dict[str, Any] = {
        "name": "mantis",
        "image": image,
        "command": ["tini", "--", "mantis"],
        "args": arguments,
        "workingDir": "/tmp",
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "envFrom": secrets,
        "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}},
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": {"mantis-kfp/client": "true"}}, "spec": pod}  # network.yaml admits such pods
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": SECONDS, "template": template}
    batch.create_namespaced_job("mantis", {"metadata": {"name": name}, "spec": spec})
    try:
        state = None
        while state is None or not (state.succeeded or state.failed):
            time.sleep(2)
            state = batch.read_namespaced_job_status(name, "mantis").status
        (made,) = core.list_namespaced_pod("mantis", label_selector=f"job-name={name}").items
        log = str(core.read_namespaced_pod_log(made.metadata.name, "mantis"))
        assert state.succeeded, log
        return log
    finally:
        kube.kubectl("-n", "mantis", "delete", "job", name, "--ignore-not-found", "--wait=false")
