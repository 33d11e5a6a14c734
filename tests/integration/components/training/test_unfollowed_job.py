"""The pod of a job that a person applied and left alone: its run is in MLflow from the start, and is closed at the end.

kubectl starts no launcher. The pod's own command runs here, and the kubelet's SIGTERM is sent as a deletion sends it.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.training.launch.torchrun_in_pod import FINAL
from components.training.step import training_task
from mantis.artifacts.checkpoint import committed
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_database import DATABASE
from mantis.tracking.mlflow_runs import find_tracked_run
from tests.fixtures.training import MakeRun
from tests.helpers.paths import ROOT, root_of
from tests.helpers.process_groups import kill_groups
from tests.helpers.waiting import HANG_SECONDS

pytestmark = pytest.mark.slow
ENDLESS = {"training.epochs": "1000", "training.checkpoint_every": "2"}
HOPELESS = {"training.learning_rate": "1.0e+30", "training.max_grad_norm": "1.0e+30"}
Pod = subprocess.Popen[bytes]
StartPod = Callable[[Run], Pod]


@pytest.fixture
def start_pod(tmp_path: Path, mantis_environment: dict[str, str]) -> Iterator[StartPod]:
    """Start the ranks of a run by the command of a TrainJob's pod."""
    pods: list[Pod] = []
    log = tmp_path / "termination-log"
    log.touch()  # as the kubelet does

    def begin(run: Run) -> Pod:
        command = [sys.executable, "-m", "components.training.launch.torchrun_in_pod", "--standalone"]
        command += ["--nproc-per-node", "2", "-m", "components.training", "--store", run.store.url, "--run-id", run.id]
        environment = mantis_environment | {
            "MANTIS_TERMINATION_LOG": str(log),
            "OMP_NUM_THREADS": "1",
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1200",  # the first rank closes the run, on a busy machine slowly
        }
        with (tmp_path / "said").open("wb") as said:
            pods.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True)
            )
        return pods[-1]

    yield begin
    kill_groups(pods)


def in_mlflow(run: Run) -> Any:
    """The run as another process sees it; None before it is opened."""
    if not (root_of(run.store) / DATABASE).exists():
        return None
    tracked = find_tracked_run(run)
    return tracked and tracked.client.get_run(tracked.id)


def until(pod: Pod, reached: Callable[[], bool], said: Path) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not reached():
        assert pod.poll() is None, said.read_text()
        assert time.monotonic() < end, said.read_text()
        time.sleep(0.2)


def is_described(run: Run) -> bool:
    """Whether parameters, user, source and data are there."""
    shown = in_mlflow(run)
    if shown is None or not shown.inputs.dataset_inputs:
        return False
    assert shown.info.status == "RUNNING"
    assert shown.data.params["training.epochs"] == str(run.recipe.training.epochs)
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.git.commit"} <= set(shown.data.tags)
    return True


def check_end(run: Run, status: str) -> Any:
    shown = in_mlflow(run)
    assert shown.info.status == status
    assert shown.info.end_time > shown.info.start_time
    return shown


def test_a_job_that_ends_is_finished(make_run: MakeRun, start_pod: StartPod, tmp_path: Path) -> None:
    run, _ = make_run("left-alone")
    pod = start_pod(run)
    assert pod.wait(HANG_SECONDS) == 0, (tmp_path / "said").read_text()
    shown = check_end(run, "FINISHED")
    tracked = find_tracked_run(run)
    assert tracked is not None
    curve = tracked.client.get_metric_history(tracked.id, "train/loss")
    assert shown.info.end_time >= max(metric.timestamp for metric in curve)


def test_a_job_that_is_deleted_is_killed_and_applied_again_it_is_running(
    make_run: MakeRun, start_pod: StartPod, tmp_path: Path
) -> None:
    run, mixture = make_run("deleted", ENDLESS)
    prefix, said = training_task(run, mixture).address(), tmp_path / "said"
    for _ in range(2):
        newest = max(committed(run.store, prefix), default=0)
        pod = start_pod(run)
        until(pod, lambda: is_running(run) and is_described(run), said)
        until(pod, partial(newer_step, run, prefix, newest), said)
        pod.terminate()
        assert pod.wait(HANG_SECONDS) == 128 + signal.SIGTERM, said.read_text()
        check_end(run, "KILLED")


def newer_step(run: Run, prefix: str, newest: int) -> bool:
    """Whether a step after `newest` is committed."""
    return max(committed(run.store, prefix), default=0) > newest


def is_running(run: Run) -> bool:
    shown = in_mlflow(run)
    return shown is not None and shown.info.status == "RUNNING"


def test_a_job_that_cannot_succeed_is_failed(make_run: MakeRun, start_pod: StartPod, tmp_path: Path) -> None:
    run, _ = make_run("hopeless", HOPELESS)
    assert start_pod(run).wait(HANG_SECONDS) == FINAL, (tmp_path / "said").read_text()
    check_end(run, "FAILED")
