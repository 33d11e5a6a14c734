"""Queues of Kueue on the test cluster."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from tests.helpers.kubectl import Kube

API = "kueue.x-k8s.io/v1beta2"
MANAGER = ("-n", "kueue-system")
PLENTY = {"cpu": "10k", "memory": "1000Ti", "ephemeral-storage": "1000Ti"}


def has_kueue(kube: Kube) -> bool:
    """Whether the cluster has Kueue."""
    return bool(kube.kubectl("get", "crd", "clusterqueues.kueue.x-k8s.io", "-o", "name", "--ignore-not-found"))


def one_queue(name: str, *, nodes: int = 0, pods: int = 0) -> list[dict[str, Any]]:
    """A flavor, a ClusterQueue and a LocalQueue in `mantis`: room for `nodes` of eight GPUs, or for `pods` anywhere."""
    limits = (
        {"nvidia.com/gpu": str(8 * nodes), "rdma/hca_shared_devices_a": str(nodes)} if nodes else {"pods": str(pods)}
    )
    quotas = [{"name": resource, "nominalQuota": amount} for resource, amount in (PLENTY | limits).items()]
    spec = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [
            {"coveredResources": [each["name"] for each in quotas], "flavors": [{"name": name, "resources": quotas}]}
        ],
    }
    flavor = {"nodeLabels": {"nvidia.com/gpu.count": "8"}} if nodes else {}
    local = {"clusterQueue": name}
    return [
        {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": flavor},
        {"apiVersion": API, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": API, "kind": "LocalQueue", "metadata": {"name": name, "namespace": "mantis"}, "spec": local},
    ]


@contextmanager
def applied(kube: Kube, objects: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Hold these objects on the cluster; they are deleted in the opposite order."""
    kube.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
    try:
        yield
    finally:
        kube.kubectl("delete", "--wait=false", "-f", "-", stdin=yaml.safe_dump_all(reversed(objects)))


@contextmanager
def configured(kube: Kube, more: dict[str, Any]) -> Iterator[None]:
    """Run Kueue with `more` in its configuration."""
    name, key = "kueue-manager-config", "controller_manager_config.yaml"
    before = kube.core.read_namespaced_config_map(name, MANAGER[1]).data[key]
    _configure(kube, name, {key: yaml.safe_dump(yaml.safe_load(before) | more)})
    try:
        yield
    finally:
        _configure(kube, name, {key: before})


def _configure(kube: Kube, name: str, data: dict[str, str]) -> None:
    kube.core.patch_namespaced_config_map(name, MANAGER[1], {"data": data})
    kube.kubectl(*MANAGER, "rollout", "restart", "deployment/kueue-controller-manager")
    kube.kubectl(*MANAGER, "rollout", "status", "deployment/kueue-controller-manager", "--timeout=180s")
    probe = yaml.safe_dump({"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": "probe"}})
    create = ("create", "--dry-run=server", "-f", "-")
    kube.until("Kueue's webhooks answer", lambda: "created" in kube.kubectl(*create, stdin=probe, check=False), 120)


def conditions(workload: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Status, time and reason of each condition of a Workload."""
    return {
        each["type"]: (each["status"], each["lastTransitionTime"], each["reason"])
        for each in workload.get("status", {}).get("conditions", ())
    }
