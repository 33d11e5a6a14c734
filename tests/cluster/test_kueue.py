"""Kueue itself, with the queues of manifests/kueue: jobs in turn, preemption, jobs that never fit, many jobs.

GPUs are simulated nodes, except for the preemption, whose pods train.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml

from components.training.launch.trainjob_spec import GROUP, VERSION, train_job
from mantis.artifacts.checkpoint import read_commit
from mantis.runs.records import State, StepRecord, write_record
from tests.cluster.conftest import RUNTIME, Following, MakeTraining, RunInBucket
from tests.helpers.kubectl import Kube
from tests.helpers.kueue import applied, conditions, configured, one_queue
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
QUEUES = ROOT / "manifests" / "kueue" / "queues.yaml"
A100 = {"training.gpus_per_node": "8", "cluster.runtime": RUNTIME, "cluster.queue": "mantis"}
WITHIN = 60  # seconds for the reason of a wait to reach `mantis status`


def shipped(nodes: int = 2) -> list[dict[str, Any]]:
    """The objects of the component, with the quotas of `nodes` nodes."""
    found = list(yaml.safe_load_all(QUEUES.read_text()))
    (queue,) = [each for each in found if each["kind"] == "ClusterQueue"]
    for each in queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]:
        number, unit = re.fullmatch(r"(\d+)(\w*)", each["nominalQuota"]).groups()
        each["nominalQuota"] = f"{int(number) * nodes // 2}{unit}"
    return found


@pytest.fixture(scope="module")
def kueue(kube: Kube, platform: float, test_cluster: Callable[..., None]) -> Iterator[None]:
    """Kueue with the configuration that docs/how-to/operate.md recommends."""
    test_cluster("kueue")
    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    blocks = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    (recommended,) = [block for block in blocks if "waitForPodsReady" in block]
    with configured(kube, recommended):
        yield


@pytest.fixture
def jobs(kube: Kube) -> Iterator[Callable[..., str]]:
    """Create the TrainJob of a run, without a launcher; they are deleted after the test."""
    made: list[str] = []

    def create(run: Any) -> str:
        job = train_job(run, uuid4().hex * 2)
        kube.kubectl("create", "-f", "-", stdin=yaml.safe_dump(job))
        made.append(job["metadata"]["name"])
        return made[-1]

    yield create
    kube.kubectl("-n", "mantis", "delete", "trainjob", *made, "--ignore-not-found")


def workloads(kube: Kube) -> dict[str, Any]:
    """Kueue's Workloads by the name of their TrainJob."""
    items = json.loads(kube.kubectl("-n", "mantis", "get", "workloads.kueue.x-k8s.io", "-o", "json"))["items"]
    return {item["metadata"]["ownerReferences"][0]["name"]: item for item in items}


def all_finished(kube: Kube, names: list[str], seconds: float) -> dict[str, dict[str, tuple[str, str, str]]]:
    """Wait until these jobs have succeeded; the conditions of their Workloads."""

    def finished() -> dict[str, dict[str, tuple[str, str, str]]] | None:
        found = {name: conditions(item) for name, item in workloads(kube).items() if name in names}
        ended = [name for name, each in found.items() if each.get("Finished", ("",))[0] == "True"]
        return found if sorted(ended) == sorted(names) else None

    found = kube.until("all jobs have finished", finished, seconds)
    assert found is not None
    assert {each["Finished"][2] for each in found.values()} == {"Succeeded"}
    return found


def nodes_of(kube: Kube, job: str) -> list[str]:
    """The nodes on which the pods of a job were."""
    pods = kube.core.list_namespaced_pod("mantis", label_selector=f"jobset.sigs.k8s.io/jobset-name={job}").items
    return [pod.spec.node_name for pod in pods]


def test_two_jobs_with_room_for_one_run_in_turn_and_never_half(
    kube: Kube, kueue: None, gpu_nodes: None, run_in_bucket: RunInBucket, jobs: Callable[..., str]
) -> None:
    with applied(kube, shipped(nodes=2)):
        names = [jobs(run_in_bucket(A100 | {"training.nodes": "2"})) for _ in range(2)]
        found = all_finished(kube, names, 240)
        first, second = sorted(found.values(), key=lambda each: each["Admitted"][1])
        assert second["Admitted"][1] >= first["Finished"][1], "the second waited for the end of the first"
        for name in names:
            assert len(set(nodes_of(kube, name))) == 2
        assert [each for each in found.values() if each.get("Evicted", ("",))[0] == "True"] == []


def test_a_job_that_can_never_fit_says_so_in_status_within_a_minute(
    kube: Kube, kueue: None, gpu_nodes: None, run_in_bucket: RunInBucket
) -> None:
    run = run_in_bucket(A100 | {"training.nodes": "17"})
    run.store.put(run.key("recipe.yaml"), run.recipe.to_yaml().encode())
    write_record(run.store, run.id, StepRecord(step="train", state=State.STARTED, started="2026-01-01T00:00:00+00:00"))
    with applied(kube, shipped(nodes=16)):
        following = Following(run)
        command = [sys.executable, "-m", "pipelines.cli", "status", run.id, "--store", run.store.url, "--json"]

        def status() -> str:
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
            assert done.returncode == 0, done.stderr
            return str(json.loads(done.stdout)["steps"][0]["reason"])

        said = kube.until("it says so", lambda: text if "can never fit" in (text := status()) else "", WITHIN)
        assert said.startswith("waiting: suspended in queue mantis, and can never fit: ")
        assert re.search(r"\(136\) > maximum capacity \(128\)|\(17\) > maximum capacity \(16\)", said), said
        kube.kubectl("-n", "mantis", "delete", "trainjob", following.name)
        assert "was deleted while it ran" in str(following.join())


NODES = (16, 8, 6, 4, 3, 1)


def test_sixteen_nodes_run_six_jobs_of_mixed_sizes_without_a_deadlock(
    kube: Kube, kueue: None, gpu_nodes: None, run_in_bucket: RunInBucket, jobs: Callable[..., str]
) -> None:
    """All are created at once. No gang is evicted: none ever waited for places that another held."""
    half = "{cpu: 32, memory: 400Gi, nvidia.com/gpu: 4, rdma/hca_shared_devices_a: 1}"
    with applied(kube, shipped(nodes=16)):
        names = {}
        for nodes in NODES:
            more = {"cluster.resources": half, "training.gpus_per_node": "4"} if nodes == 3 else {}
            priority = {"cluster.priority": "mantis-training" if nodes > 3 else "mantis-evaluation"}
            names[jobs(run_in_bucket(A100 | {"training.nodes": str(nodes)} | priority | more))] = nodes
        found = all_finished(kube, list(names), 600)
        for name, nodes in names.items():
            assert len(nodes_of(kube, name)) == len(set(nodes_of(kube, name))) == nodes
        evicted = {name: each["Evicted"][2] for name, each in found.items() if each.get("Evicted", ("",))[0] == "True"}
        assert not {reason for reason in evicted.values() if reason != "Preempted"}
        changes = [(each["Admitted"][1], names[name]) for name, each in found.items()]
        changes += [(each["Finished"][1], -names[name]) for name, each in found.items()]
        held = [sum(nodes for at, nodes in changes if at <= now) for now, _ in changes]
        assert max(held) <= 16


def test_a_preempted_training_saves_waits_and_ends_with_the_same_bits(
    kube: Kube, kueue: None, training: MakeTraining, image: str
) -> None:
    undisturbed, one = training(), training({"cluster.queue": "one", "cluster.priority": "mantis-evaluation"})
    classes = [each for each in shipped() if each["kind"] == "WorkloadPriorityClass"]
    with applied(kube, [*classes, *one_queue("one", pods=2)]):
        one.start()
        one.wait_for_step(5)
        waits = "waiting: suspended in queue one"
        before = one.said().count(waits)  # it may have waited for its first admission
        urgent = f"urgent-{uuid4().hex[:8]}"
        labels = {"kueue.x-k8s.io/queue-name": "one", "kueue.x-k8s.io/priority-class": "mantis-training"}
        trainer = {"image": image, "numNodes": 2, "numProcPerNode": 1, "command": ["sleep", "10"]}
        job = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TrainJob",
            "metadata": {"name": urgent, "namespace": "mantis", "labels": labels},
            "spec": {"runtimeRef": {"name": "mantis-deepspeed"}, "trainer": trainer},
        }
        kube.kubectl("create", "-f", "-", stdin=yaml.safe_dump(job))
        kube.until("the training waits", lambda: one.said().count(waits) > before, 180)
        kube.until("the training continues", lambda: "Training continues after step" in one.said(), 300)
        restarts = kube.kubectl("-n", "mantis", "get", "jobset", one.job, "-o", "jsonpath={.status.restarts}")
        assert restarts in ("", "0"), "a preemption uses up no restart"
        said = one.ends()
        assert "A rank was lost" not in said
        kube.kubectl("-n", "mantis", "delete", "trainjob", urgent)
    assert one.is_done()
    undisturbed.start()
    undisturbed.ends()
    assert one.losses() == undisturbed.losses()
    assert bits(one) == bits(undisturbed)


def bits(training: Any) -> dict[str, str]:
    """SHA-256 of the weights and of the optimizer's state after the last step."""
    commit = read_commit(training.store, training.prefix, training.steps_saved())
    found = {file.name: file.sha256 for file in commit.files if file.name.endswith(".pt")}
    assert commit.step == 30
    assert found
    return found
