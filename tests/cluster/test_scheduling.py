"""The a100 overlay's jobs on simulated nodes: the real scheduler, pods that are only said to run."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from components.training.launch.trainjob_spec import train_job
from mantis.errors import TrainingError
from tests.cluster.conftest import MADE, RUNTIME, Following, RunInBucket
from tests.helpers.kubectl import Kube
from tests.helpers.kueue import applied, has_kueue, one_queue

PATCH = ("-n", "mantis", "patch", "--type=merge")
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def held_queue(kube: Kube, platform: float) -> Iterator[Callable[[], None]]:
    """A queue `held` of Kueue that admits nothing; the result lets it admit. Without Kueue there is no queue."""
    if not has_kueue(kube):
        yield lambda: None
        return
    objects = one_queue("held", nodes=2)
    objects[-1]["spec"]["stopPolicy"] = "Hold"
    with applied(kube, objects):
        yield lambda: print(kube.kubectl(*PATCH, "localqueue", "held", "-p", '{"spec": {"stopPolicy": "None"}}'))


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


def test_a_suspended_job_waits_in_its_queue(
    kube: Kube, gpu_nodes: Any, run_in_bucket: RunInBucket, said: Any, held_queue: Callable[[], None]
) -> None:
    """The job is suspended from its beginning, and resumed when it is admitted: by Kueue, or by hand without Kueue."""
    run = run_in_bucket(
        {"training.nodes": "2", "training.gpus_per_node": "8", "cluster.runtime": RUNTIME, "cluster.queue": "held"}
    )
    job = train_job(run, MADE)
    job["spec"]["suspend"] = True
    kube.kubectl("create", "-f", "-", stdin=yaml.safe_dump(job))
    following = Following(run)
    said("waiting: suspended in queue held until it is admitted")
    held_queue()
    if not has_kueue(kube):
        kube.kubectl(*PATCH, "trainjob", following.name, "-p", '{"spec": {"suspend": false}}')
    assert following.join() is None
