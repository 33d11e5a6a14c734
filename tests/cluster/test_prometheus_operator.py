"""The component `monitoring` with a real Prometheus Operator: what its Prometheus finds, reads, and loads."""

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.cluster.own_namespaces import STARTED, Installed, installed_with
from tests.helpers.kubectl import Kube
from tests.helpers.kustomize import built
from tests.helpers.monitoring import alert_groups

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ACCOUNT = {"metadata": {"name": "prometheus"}}
RIGHTS = [{"apiGroups": [""], "resources": ["pods", "services", "endpoints"], "verbs": ["get", "list", "watch"]}]
RBAC = "rbac.authorization.k8s.io"
# Everything of its own namespace, read every few seconds.
PROMETHEUS = {
    "serviceAccountName": "prometheus",
    "podMonitorSelector": {},
    "ruleSelector": {},
    "scrapeInterval": "3s",
    "evaluationInterval": "3s",
    "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}},
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "fsGroup": 2000,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The project in namespaces of the test, and the local address of its Prometheus."""

    installed: Installed
    url: str

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series."""
        found = self.ask(f"query?query={urllib.parse.quote(expression)}")["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]


def prometheus_of(namespace: str) -> str:
    """A Prometheus of the operator, and the account by which it finds pods."""
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", **ACCOUNT, "rules": RIGHTS}
    bound = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        **ACCOUNT,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "prometheus"},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
    }
    server = {"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", **ACCOUNT, "spec": PROMETHEUS}
    return yaml.safe_dump_all([{"apiVersion": "v1", "kind": "ServiceAccount", **ACCOUNT}, role, bound, server])


@pytest.fixture(scope="module")
def watched(kube: Kube, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if "prometheuses" not in kube.kubectl("api-resources", "--api-group=monitoring.coreos.com", "-o", "name"):
        pytest.skip("no Prometheus Operator in this cluster")
    objects = built(tmp_path_factory.mktemp("lab"), resources=["overlays/local"], components=["monitoring"])
    with installed_with(kube, image, objects) as made:
        kube.kubectl("label", "namespace", made.namespace, "mantis-kfp/monitoring=true")
        kube.kubectl("-n", made.namespace, "apply", "-f", "-", stdin=prometheus_of(made.namespace))
        pod = ("-n", made.namespace, "get", "pod", "prometheus-prometheus-0", "--no-headers", "--ignore-not-found")
        kube.until("Prometheus", lambda: "2/2" in kube.kubectl(*pod), STARTED)
        with kube.forwarded("prometheus-operated", 9090, made.namespace) as port:
            yield Watched(installed=made, url=f"http://127.0.0.1:{port}")


def test_both_servers_are_found_and_read(kube: Kube, watched: Watched) -> None:
    def jobs() -> set[str]:
        return {labels["job"] for labels, value in watched.values("up") if value == 1}

    kube.until("both servers", lambda: jobs() >= {"mantis-minio", "mantis-mlflow"}, 180)
    assert watched.values("minio_cluster_capacity_usable_total_bytes")


def test_every_alert_is_loaded(kube: Kube, watched: Watched) -> None:
    wanted = {rule["alert"] for group in alert_groups()["groups"] for rule in group["rules"]}

    def loaded() -> set[str]:
        groups = watched.ask("rules")["groups"]
        return {rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "ok"}

    assert kube.until("the alerts", lambda: loaded() >= wanted, 120)


def test_a_training_is_read_while_its_ranks_are_pods(kube: Kube, watched: Watched, image: str) -> None:
    """The little run in the background. Its first rank alone is a target."""
    command = " ".join(f"'{word}'" for word in watched.installed.little_run(image))
    watched.installed.in_pod("sh", "-c", f"{command} > /tmp/run.out 2>&1 &")
    ((labels, step),) = kube.until("a step", lambda: watched.values("mantis_training_step"), 600)
    assert labels["job"] == "mantis-training"
    assert labels["run"].startswith("demo-")
    assert labels["pod"].startswith(f"train-{labels['run']}-")
    assert step >= 0


def test_a_lost_mlflow_is_an_alert(kube: Kube, watched: Watched) -> None:
    kube.kubectl("-n", watched.installed.namespace, "scale", "statefulset/mlflow", "--replicas=0")

    def alerts() -> dict[str, str]:
        return {each["labels"]["alertname"]: each["state"] for each in watched.ask("alerts")["alerts"]}

    assert kube.until("the alert", lambda: alerts().get("MantisMlflowAway"), 180) == "pending"
