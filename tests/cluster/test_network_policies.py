"""Each NetworkPolicy of manifests/ lets a listed connection pass and stops the others.

The policies are applied to namespaces of the test, with pods that have the labels of the real ones. Before that, every
connection passes: so it is a policy that stops one. The test cluster has no CNI that enforces policies. There, the
tests run kube-router beside it (`make kube-router`).
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT
from tests.helpers.policy_enforcer import enforcer, what_is_missing
from tests.unit.components.serving.test_deployment import objects

pytestmark = pytest.mark.slow
MANIFESTS = ROOT / "manifests"
NAME = "kubernetes.io/metadata.name"
PORTS = (53, 443, 1234, 5000, 5432, 6443, 8000, 9000, 9464, 9465, 10443)
TAKES_EFFECT = 90  # seconds, for the policies to reach the kernel on a busy machine
LISTEN = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    waiting.register(socket.create_server(("", port)), selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in waiting.select():
        key.fileobj.accept()[0].close()
"""
# Prints for each HOST:PORT whether a connection to it opens; all at the same time.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def opens(place):
    host, port = place.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
    except OSError:
        return False
    return True
with ThreadPoolExecutor(32) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(opens, sys.argv[1:])))))
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A pod of the test. `namespace` is the one whose part it plays."""

    namespace: str = "mantis"
    labels: tuple[tuple[str, str], ...] = ()


def named(name: str) -> Place:
    return Place(labels=(("app.kubernetes.io/name", name), ("mantis-kfp/service", name)))


def marked(**labels: str) -> Place:
    return Place(labels=tuple((f"mantis-kfp/{key}", value) for key, value in labels.items()))


PLACES = {
    "minio": named("minio"),
    "mlflow": named("mlflow"),
    "postgresql": named("postgresql"),
    "back-up": marked(role="back-up"),
    "client": marked(client="true"),
    "rank": marked(role="rank"),
    "other-rank": marked(role="rank"),
    "launcher": marked(role="launcher"),
    "asker": marked(asks="true"),
    "server": marked(role="server", client="true", server="model-policies"),
    "stranger": Place(),
    "step": Place(namespace="mantis-steps"),
    "driver": Place(namespace="kubeflow"),
    "task": Place(namespace="kubeflow", labels=(("mantis-kfp/step", "true"),)),
    "outside": Place(namespace="elsewhere"),
    "outside-asker": Place(namespace="askers"),
    "prometheus": Place(namespace="monitoring"),
    "trainer": Place(namespace="kubeflow-system"),
}
LABELS = {"mantis-steps": {"mantis-kfp/steps": "true"}, "askers": {"mantis-kfp/asks": "true"}}
LABELS["monitoring"] = {"mantis-kfp/monitoring": "true"}
# For each policy: connections that pass because of it, and those that it stops. `outside` and `driver` have no policy
# of their own, so a connection from or to them tries one direction alone.
CONNECTIONS: dict[str, tuple[list[str], list[str]]] = {
    "default-deny": ([], ["outside stranger 9000", "stranger outside 9000", "stranger client 9000"]),
    "names-are-looked-up": (["stranger names 53", "rank names 53"], ["stranger outside 53", "rank outside 53"]),
    "services-are-reached": (
        ["client minio 9000", "client mlflow 5000", "step minio 9000", "step mlflow 5000"],
        ["outside minio 9000", "outside-asker mlflow 5000", "stranger minio 9000", "rank minio 9000"],
    ),
    "clients-reach-services": (
        ["client minio 9000"],
        ["client minio 1234", "client outside 9000", "client outside 5000", "client server 8000"],
    ),
    "services-are-reached-from-kubeflow": (["driver minio 9000", "driver mlflow 5000"], ["driver minio 1234"]),
    "ranks-meet": (
        ["rank other-rank 1234", "other-rank rank 9000"],
        ["rank outside 1234", "outside rank 1234", "rank client 1234", "client rank 1234", "rank server 8000"],
    ),
    "askers-reach-servers": (["asker server 8000"], ["asker server 9000", "asker outside 8000", "asker minio 9000"]),
    "model-policies": (
        ["asker server 8000", "outside-asker server 8000"],
        ["outside server 8000", "outside-asker server 9000", "client server 8000", "driver server 8000"],
    ),
    "the-api-server-is-reached": (
        ["launcher outside 6443", "launcher outside 443"],
        ["launcher outside 9000", "launcher minio 9000", "client outside 6443", "server outside 6443"],
    ),
    "ranks-report": (
        ["rank outside 443", "rank outside 6443", "rank trainer 10443"],
        ["rank outside 10443", "rank trainer 9000", "rank outside 5000", "client outside 6443"],
    ),
    "default-deny of mantis-steps": ([], ["outside step 9000", "client step 9000", "driver step 9000"]),
    "steps-reach-out": (
        ["step minio 9000", "step driver 1234", "step outside 443", "step outside 6443"],
        ["step outside 9000", "step client 9000", "step server 8000", "step minio 1234", "step outside-asker 8000"],
    ),
    "services-are-measured": (
        ["prometheus minio 9000", "prometheus mlflow 9465"],
        ["prometheus minio 1234", "prometheus mlflow 5000", "prometheus client 9000", "outside mlflow 9465"],
    ),
    "ranks-are-measured": (["prometheus rank 9464"], ["prometheus rank 1234", "outside rank 9464"]),
    "servers-are-measured": (["prometheus server 8000"], ["prometheus server 9464", "prometheus step 8000"]),
    "mantis-steps": (
        ["task minio 9000", "task mlflow 5000", "task driver 1234", "task names 53", "task outside 443"],
        ["driver task 9000", "outside task 443", "task outside 9000", "task client 9000", "task minio 1234"],
    ),
    "clients-reach-own-s3": (["client outside 443"], ["client outside 5432", "stranger outside 443"]),
    "postgresql-is-reached": (
        ["mlflow postgresql 5432", "back-up postgresql 5432"],
        ["outside postgresql 5432", "client postgresql 5432", "mlflow postgresql 1234"],
    ),
    "postgresql-is-called": (["mlflow postgresql 5432"], ["mlflow postgresql 9000", "mlflow client 5000"]),
    "the-back-up-is-reached": (
        ["back-up outside 443", "back-up outside 5432"],
        ["back-up outside 9000", "outside back-up 443"],
    ),
    "mlflow-reaches-postgresql": (["mlflow outside 5432"], ["mlflow outside 443", "minio outside 5432"]),
}


def policies_of_project() -> list[dict[str, Any]]:
    """Those of manifests/ and of a deployed model."""
    found = [item for path in MANIFESTS.rglob("*.yaml") for item in yaml.safe_load_all(path.read_text())]
    found = [item for item in found if isinstance(item, dict)]  # a file of patches is a list
    return [item for item in [*found, *objects(name="policies").values()] if item.get("kind") == "NetworkPolicy"]


class Stage:
    """Pods in namespaces of the test."""

    def __init__(self, kube: Kube, image: str) -> None:
        self.kube, self.image, tail = kube, image, uuid4().hex[:8]
        self.namespaces = {place.namespace: f"policies-{place.namespace}-{tail}" for place in PLACES.values()}
        self.addresses: dict[str, str] = {}

    def build(self) -> None:
        for part, name in self.namespaces.items():
            self.kube.core.create_namespace({"metadata": {"name": name, "labels": LABELS.get(part, {})}})
            self.kube.until(f"the account of {name}", partial(self._has_account, name), 60)
        for name, place in PLACES.items():
            command = ["python3", "-c", LISTEN, *map(str, PORTS)]
            container: dict[str, Any] = {"name": "node", "image": self.image, "command": command}
            container["securityContext"] = {"runAsUser": 0}  # for the ports below 1024
            spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
            pod = {"metadata": {"name": name, "labels": dict(place.labels)}, "spec": spec}
            self.kube.core.create_namespaced_pod(self.namespaces[place.namespace], pod)
        for name in PLACES:
            self.addresses[name] = self.kube.until(f"the pod {name}", partial(self._address, name), 240)
        self.addresses["names"] = self.kube.core.read_namespaced_service("kube-dns", "kube-system").spec.cluster_ip

    def tear_down(self) -> None:
        for name in self.namespaces.values():
            self.kube.core.delete_namespace(name)

    def _has_account(self, namespace: str) -> bool:
        return "default" in self.kube.kubectl("-n", namespace, "get", "serviceaccounts", "-o", "name")

    def _address(self, name: str) -> str | None:
        space = self.namespaces[PLACES[name].namespace]
        listens = "listening" in self.kube.kubectl("-n", space, "logs", name, check=False)
        return self.kube.core.read_namespaced_pod(name, space).status.pod_ip if listens else None

    def passed(self, connections: set[str]) -> set[str]:
        """Those of the connections FROM TO PORT that open."""
        found: set[str] = set()
        for name in sorted({connection.split()[0] for connection in connections}):
            asked: dict[str, str] = {}
            for connection in connections:
                source, target, port = connection.split()
                if source == name:
                    asked[f"{self.addresses[target]}:{port}"] = connection
            answer = self.kube.until(f"an answer of {name}", partial(self._tried, name, [*asked]), 60)
            found |= {asked[place] for place, opened in answer.items() if opened}
        return found

    def _tried(self, name: str, places: list[str]) -> dict[str, bool] | None:
        """Which places the pod reaches; None if kubectl lost the answer ("Unknown stream id 1, discarding message")."""
        space = self.namespaces[PLACES[name].namespace]
        said = self.kube.kubectl("-n", space, "exec", name, "--", "python3", "-c", CONNECT, *places)
        answers = [line for line in said.splitlines() if line.startswith("{")]
        return dict(json.loads(answers[0])) if answers else None

    def policies(self) -> list[dict[str, Any]]:
        """The project's policies, with this stage's namespaces in place of the real ones."""
        found = policies_of_project()
        for item in found:
            item["metadata"]["namespace"] = self.namespaces[item["metadata"]["namespace"]]
            for rule in [*item["spec"].get("ingress", ()), *item["spec"].get("egress", ())]:
                for peer in [*rule.get("from", ()), *rule.get("to", ())]:
                    chosen = peer.get("namespaceSelector", {}).get("matchLabels", {})
                    if (name := chosen.get(NAME)) in self.namespaces:
                        chosen[NAME] = self.namespaces[name]
        return found


@pytest.fixture(scope="module")
def stage(kube: Kube, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The pods, with the policies in effect."""
    made = Stage(kube, image)
    missing = what_is_missing()
    with ExitStack() as stack:
        stack.callback(made.tear_down)
        made.build()
        every = {connection for passed, stopped in CONNECTIONS.values() for connection in passed + stopped}
        assert every - made.passed(every) == set(), "without policies every connection passes"
        if not missing:
            stack.enter_context(enforcer(tmp_path_factory.mktemp("enforcer") / "kube-router.log"))
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(made.policies()))
        wanted = {connection for passed, _ in CONNECTIONS.values() for connection in passed}
        try:
            kube.until("the policies are in effect", lambda: made.passed(every) == wanted, TAKES_EFFECT)
        except AssertionError:
            if missing and made.passed(every) == every:
                pytest.skip(f"the cluster enforces no NetworkPolicies, and this machine cannot: {missing}")
        yield made


@pytest.mark.parametrize("policy", CONNECTIONS)
def test_a_policy_lets_pass_what_it_lists_and_stops_the_rest(stage: Stage, policy: str) -> None:
    passed, stopped = CONNECTIONS[policy]
    assert stage.passed({*passed, *stopped}) == set(passed)


def test_every_policy_is_tried() -> None:
    assert sorted(item["metadata"]["name"] for item in policies_of_project()) == sorted(
        policy.split()[0] for policy in CONNECTIONS
    )
