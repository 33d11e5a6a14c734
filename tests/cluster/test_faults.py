"""What goes wrong on a cluster, done to a training of thirty steps: it ends right, and nothing is left over."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from components.training.launch.torchrun_in_pod import FINAL
from components.training.launch.trainjob_spec import GROUP, VERSION, applied_job
from mantis.runs.records import read_record
from mantis.tracking.mlflow_runs import Status
from pipelines.execution.finalize import close_run
from tests.cluster.conftest import MakeTraining
from tests.helpers.kubectl import Kube

pytestmark = pytest.mark.timeout(600)
STEPS = list(range(1, 31))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Filled by the first test: the losses that every other training has to come to."""
    return {}


def check(training: Any, undisturbed: Any) -> None:
    """Trained once, recorded once, the very same losses, and nothing left on the cluster."""
    assert training.is_done()
    losses = training.losses()
    assert [step for step, _ in losses] == STEPS
    assert losses == undisturbed.get("losses", losses)
    summary = read_record(training.store, training.run.id, "train").summary
    assert (summary["steps"], summary["samples"]) == (30, 30 * 80)
    assert sorted(logged_steps(training)) == STEPS
    assert training.left_over() == ""


def logged_steps(training: Any) -> list[int]:
    """The steps that MLflow has a loss for, as often as it has one."""
    from mantis.tracking.mlflow_runs import MARKER_METRIC, open_tracked_run

    tracked = open_tracked_run(training.run)
    return [metric.step for metric in tracked.client.get_metric_history(tracked.id, MARKER_METRIC)]


def deletion(kube: Any, job: str) -> str:
    """When a TrainJob was asked to end; not empty either where it is gone."""
    path = "jsonpath={.metadata.deletionTimestamp}"
    return kube.kubectl("-n", "mantis", "get", "trainjob", job, "-o", path, check=False)


def test_applied_twice_it_is_trained_once(training: MakeTraining, undisturbed: dict[str, object]) -> None:
    """Two launchers at the same time: one creates the job, the other follows it, and both report its end."""
    one = training()
    first, second = one.start(), one.start()
    assert (first.wait(300), second.wait(300)) == (0, 0), one.said()
    said = one.said()
    assert said.count("was created") == 1
    assert said.count("is there already and is followed") == 1
    assert re.search(r"training: 30 of 30 steps .* loss", said)  # the first rank's log was followed to its end
    check(one, undisturbed)
    undisturbed["losses"] = one.losses()


@pytest.mark.slow
def test_a_job_that_a_person_applied_is_followed_and_what_it_trained_is_taken(
    training: MakeTraining, undisturbed: dict[str, object], kube: Kube
) -> None:
    one = training()
    job = applied_job(one.run)
    for _ in range(2):  # applied twice it is one
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(job))
    one.start()
    said = one.ends()
    assert f"TrainJob mantis/{job['metadata']['name']} was applied for this run and is followed" in said
    assert "was created" not in said
    check(one, undisturbed)
    assert job["metadata"]["name"] not in kube.kubectl("-n", "mantis", "get", "trainjobs,jobsets,pods", "-o", "name")


DRAINED = pytest.param(("--wait=false",), id="drained")  # SIGTERM, and time to save, as an eviction gives
KILLED = pytest.param(("--grace-period=0", "--force"), id="killed", marks=pytest.mark.slow)


@pytest.mark.parametrize("how", [DRAINED, KILLED])
def test_a_pod_is_deleted_in_mid_training(
    training: MakeTraining, undisturbed: dict[str, object], kube: Kube, how: Any
) -> None:
    one = training()
    one.start()
    one.wait_for_step(10)
    pods = kube.kubectl("-n", "mantis", "get", "pods", "-o", "name", "-l", f"jobset.sigs.k8s.io/jobset-name={one.job}")
    (second,) = [line for line in pods.splitlines() if f"{one.job}-node-0-1" in line]
    kube.kubectl("-n", "mantis", "delete", second, *how)
    said = one.ends()
    assert "A rank was lost: attempt 2" in said
    assert "Training continues after step" in said
    check(one, undisturbed)


@pytest.mark.slow
def test_the_launcher_is_killed(training: MakeTraining, undisturbed: dict[str, object]) -> None:
    """The job goes on without it; the same command follows it to its end."""
    one = training()
    process = one.start()
    one.wait_for_step(5)
    process.kill()
    process.wait()
    one.start()
    said = one.ends()
    assert "is there already and is followed" in said
    assert said.count("was created") == 1
    check(one, undisturbed)


@pytest.mark.slow
def test_minio_is_restarted(training: MakeTraining, undisturbed: dict[str, object], kube: Kube) -> None:
    one = training()
    one.start()
    one.wait_for_step(10)
    kube.kubectl("-n", "mantis", "delete", "pod", "minio-0")
    kube.kubectl("-n", "mantis", "rollout", "status", "statefulset/minio", "--timeout=120s")
    one.ends()
    check(one, undisturbed)


@pytest.mark.slow
def test_the_api_server_is_restarted(
    training: MakeTraining, undisturbed: dict[str, object], test_cluster: Callable[..., None]
) -> None:
    one = training()
    one.start()
    one.wait_for_step(5)
    home = Path(os.environ.get("CLUSTER_HOME", Path.home() / ".cache" / "test-cluster"))
    os.kill(int((home / "run" / "kube-apiserver.pid").read_text()), signal.SIGKILL)
    test_cluster("up")
    said = one.ends()
    assert "The API server does not answer" in said
    assert "The API server answers again" in said
    check(one, undisturbed)
    test_cluster("up")  # kube-proxy ends by itself where its configuration was written anew; now it starts again


@pytest.mark.slow
def test_a_job_whose_launcher_was_killed_is_deleted_when_the_run_is_closed(training: MakeTraining, kube: Kube) -> None:
    one = training()
    launcher = one.start()
    one.wait_for_step(5)
    launcher.kill()
    assert one.job in kube.kubectl("-n", "mantis", "get", "trainjobs", "-o", "name")
    close_run(one.run, Status.KILLED)
    kube.until("nothing is left", lambda: one.left_over() == "", 180)
    assert one.steps_saved() >= 5


def test_cancelled(training: MakeTraining, undisturbed: dict[str, object], kube: Kube) -> None:
    """SIGTERM of the launcher saves, deletes the job and leaves nothing; the same command goes on from there."""
    one = training()
    process = one.start()
    one.wait_for_step(5)
    process.send_signal(signal.SIGTERM)
    kube.until("the job is deleted", lambda: deletion(kube, one.job), 10)  # at once: KFP kills a pod after 30 s
    said = one.ends(status=128 + signal.SIGTERM)
    assert "cancelled" in said
    assert not one.is_done()
    assert one.left_over() == ""
    saved = one.steps_saved()
    assert 5 <= saved < 30
    one.start()
    assert f"Training continues after step {saved}" in one.ends()
    check(one, undisturbed)


def test_a_training_that_cannot_succeed_is_not_tried_again(training: MakeTraining) -> None:
    """A rank's own error comes back as it is; the restarts that the platform would allow are not used up."""
    one = training({"training.learning_rate": "1.0e+30", "training.max_grad_norm": "1.0e+30"})
    one.start()
    said = one.ends(status=1)
    assert "Lower training.learning_rate" in said
    assert "attempt 3" not in said
    assert one.left_over() == ""


@pytest.mark.parametrize(("code", "restarts"), [(FINAL, "0"), (1, "5")])
def test_the_exit_code_of_a_pod_decides_about_restarts(
    kube: Kube, platform: float, image: str, code: int, restarts: str
) -> None:
    """Without a launcher, the policies of Job and JobSet alone end what every attempt would meet again."""
    name = f"exit-{code}-{uuid4().hex[:8]}"
    trainer = {"image": image, "numNodes": 1, "numProcPerNode": 1, "command": ["sh", "-c", f"exit {code}"]}
    job = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "namespace": "mantis"},
        "spec": {"runtimeRef": {"name": "mantis-deepspeed"}, "trainer": trainer},
    }
    kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(job))
    state = "jsonpath={.status.terminalState} {.status.restarts}"

    def ended() -> bool:
        said = kube.kubectl("-n", "mantis", "get", "jobset", name, "-o", state, check=False)
        return said.startswith("Failed ") and said.split()[1] == restarts

    try:
        kube.until(f"{name} has failed after {restarts} restarts", ended, 120)
    finally:
        kube.kubectl("-n", "mantis", "delete", "trainjob", name, "--wait=false")
