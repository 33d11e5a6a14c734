"""The whole DAG against the cluster: steps here, the ranks as a TrainJob, everything in MinIO and MLflow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

SECONDS = 1500
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(SECONDS + 60)
def test_the_demo_clears_its_bars(kube, services, image, clears_its_bars, tmp_path):
    """Data from here, the job applied with kubectl; `mantis run` follows it, converts, evaluates and reports."""
    store = f"s3://mantis/demo-{uuid4().hex[:8]}"
    settings = {
        "training.launcher": "trainjob",
        "training.nodes": "2",
        "training.processes_per_node": "1",
        "cluster.image": image,
    }
    given = ["demo", "--store", store, *(f"--set={name}={value}" for name, value in settings.items())]
    mantis("data", "prepare", *given, folder=tmp_path)
    kube.kubectl("apply", "-f", "-", stdin=mantis("job", *given, "--image", image, folder=tmp_path))
    said = mantis("run", *given, "--json", folder=tmp_path)
    logs = "\n".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "was applied for this run and is followed" in logs
    assert re.search(r"training: [\d,]+ of 2,500 steps .* loss", logs)  # what `kubectl logs` shows
    summary = json.loads(Path(said.splitlines()[-1]).read_text())
    clears_its_bars(summary["scores"])
    assert "trainjob" not in kube.kubectl("-n", "mantis", "get", "trainjobs", "-o", "name")
    in_mlflow(summary["run"])


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


def in_mlflow(run: str) -> None:
    """The run is finished there, with its curve, its scores and its report."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("mantis")
    (found,) = client.search_runs([experiment.experiment_id], filter_string=f"tags.`mantis.run` = '{run}'")
    assert found.info.status == "FINISHED"
    assert {"train/loss", "eval/mean/accuracy"} <= set(found.data.metrics)
    hosts = {name.split("/")[1] for name in found.data.metrics if name.startswith("system/")}
    assert len(hosts) == 2  # what each rank's pod did
    assert "report.html" in {item.path for item in client.list_artifacts(found.info.run_id)}
