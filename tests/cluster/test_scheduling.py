"""The a100 overlay's jobs on simulated nodes: the real scheduler, pods that are only said to run."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from components.training.launch.trainjob import TrainJobLauncher
from components.training.launch.trainjob_spec import train_job
from mantis.errors import TrainingError
from mantis.logging import configure
from tests.cluster.conftest import RunInBucket
from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT

RUNTIME = "mantis-deepspeed-a100"  # beside the one of the overlay that is applied
MADE = "1" * 64
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def gpu_nodes(kube: Kube, platform: float, test_cluster: Callable[..., None]) -> Iterator[Any]:
    """Sixteen nodes of eight A100 with a network card each, and the a100 overlay's runtime under its own name."""
    built = kube.kubectl("kustomize", ROOT / "manifests" / "overlays" / "a100")
    (runtime,) = [item for item in yaml.safe_load_all(built) if item["kind"] == "ClusterTrainingRuntime"]
    runtime["metadata"]["name"] = RUNTIME
    kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(runtime))
    test_cluster("fake-nodes", "16", "--resource", "rdma/hca_shared_devices_a=1", "--seconds", "15")
    yield
    test_cluster("fake-nodes", "0")
    kube.kubectl("delete", "clustertrainingruntime", RUNTIME)


class Following:
    """The launcher in a thread, so that a test can look at the job meanwhile."""

    def __init__(self, run: Any) -> None:
        self.error: BaseException | None = None
        self.name = train_job(run, MADE)["metadata"]["name"]
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True)
        self._thread.start()

    def _work(self, run: Any) -> None:
        try:
            TrainJobLauncher().launch(run, f"checkpoints/{MADE}")
        except BaseException as error:
            self.error = error

    def join(self) -> BaseException | None:
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.error


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Any:
    """Wait for words of the launcher; returns all that it said."""
    configure()
    heard: list[str] = []

    def wait(words: str, seconds: float = 60) -> str:
        end = time.monotonic() + seconds
        while words not in "".join(heard):
            assert time.monotonic() < end, f"{words!r} was not said: {''.join(heard)}"
            time.sleep(0.3)
            heard.append(capfd.readouterr().err)
        return "".join(heard)

    return wait


@pytest.mark.parametrize("nodes", [2, 16])
def test_a_pod_on_each_node_of_eight(
    kube: Kube, gpu_nodes: Any, run_in_bucket: RunInBucket, said: Any, nodes: int
) -> None:
    run = run_in_bucket({"training.nodes": str(nodes), "training.gpus_per_node": "8", "cluster.runtime": RUNTIME})
    following = Following(run)
    label = f"jobset.sigs.k8s.io/jobset-name={following.name}"
    placed: set[str] = set()
    end = time.monotonic() + 60
    while len(placed) < nodes and time.monotonic() < end:
        pods = kube.core.list_namespaced_pod("mantis", label_selector=label).items
        placed = {pod.spec.node_name for pod in pods if pod.spec.node_name}
        time.sleep(0.3)
    assert len(pods) == nodes
    assert len(placed) == nodes  # each on a node of its own
    assert all(name.startswith("gpu-") for name in placed)
    assert {pod.spec.containers[0].resources.limits["nvidia.com/gpu"] for pod in pods} == {"8"}
    assert following.join() is None
    assert (
        kube.kubectl("-n", "mantis", "get", "pods", "-l", label, "--no-headers", "--ignore-not-found").count("-node-")
        == 0
    )


def test_a_job_that_does_not_fit_waits_and_says_why(
    kube: Kube, gpu_nodes: Any, run_in_bucket: RunInBucket, said: Any
) -> None:
    run = run_in_bucket({"training.nodes": "17", "training.gpus_per_node": "8", "cluster.runtime": RUNTIME})
    following = Following(run)
    text = said("nodes are available")
    assert re.search(r"waiting: 0/17 nodes are available: .*Insufficient nvidia.com/gpu", text)
    kube.kubectl("-n", "mantis", "delete", "trainjob", following.name)
    error = following.join()
    assert isinstance(error, TrainingError)
    assert "was deleted while it ran" in str(error)


def test_a_suspended_job_waits_in_its_queue(kube: Kube, gpu_nodes: Any, run_in_bucket: RunInBucket, said: Any) -> None:
    """As Kueue does it: the job is suspended from its beginning, and resumed when it is admitted."""
    run = run_in_bucket(
        {"training.nodes": "2", "training.gpus_per_node": "8", "cluster.runtime": RUNTIME, "cluster.queue": "a100"}
    )
    job = train_job(run, MADE)
    job["spec"]["suspend"] = True
    kube.kubectl("create", "-f", "-", stdin=yaml.safe_dump(job))
    following = Following(run)
    said("waiting: suspended in queue a100 until it is admitted")
    kube.kubectl(
        "-n", "mantis", "patch", "trainjob", following.name, "--type=merge", "-p", '{"spec": {"suspend": false}}'
    )
    assert following.join() is None
