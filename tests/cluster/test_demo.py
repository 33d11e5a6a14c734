"""The whole DAG against the cluster: steps here, the ranks as a TrainJob, everything in MinIO and MLflow."""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

ABOVE_CHANCE = 0.25
SECONDS = 1500


@pytest.mark.timeout(SECONDS + 60)
def test_the_demo_clears_its_bars(kube, services, image, tmp_path):
    store = f"s3://mantis/demo-{uuid4().hex[:8]}"
    settings = {
        "training.launcher": "trainjob",
        "training.nodes": "2",
        "training.processes_per_node": "1",
        "cluster.image": image,
    }
    command = [sys.executable, "-m", "pipelines.cli", "run", "demo", "--json", "--store", store]
    command += [f"--set={name}={value}" for name, value in settings.items()]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root, "MANTIS_LOG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    logs = "\n".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs[-4000:]
    summary = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    assert {row["skill"] for row in summary["scores"]} == {"compare", "coref", "temporal", "reason", "single"}
    for row in summary["scores"]:
        assert row["low"] >= row["chance"] + ABOVE_CHANCE, row
    assert "2 x 1 ranks of" in logs
    assert "trainjob" not in kube.kubectl("-n", "mantis", "get", "trainjobs", "-o", "name")
    in_mlflow(summary["run"])


def in_mlflow(run: str) -> None:
    """The run is finished there, with its curve, its scores and its report."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("mantis")
    (found,) = client.search_runs([experiment.experiment_id], filter_string=f"tags.`mantis.run` = '{run}'")
    assert found.info.status == "FINISHED"
    assert {"train/loss", "eval/mean/accuracy"} <= set(found.data.metrics)
    assert "report.html" in {item.path for item in client.list_artifacts(found.info.run_id)}
