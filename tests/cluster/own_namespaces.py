"""An overlay in namespaces of a test, because some components can be tried only beside the installed ones."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import yaml

from tests.cluster.test_image import SECURITY
from tests.helpers.kubectl import Kube
from tests.helpers.little_run import LITTLE
from tests.helpers.yaml_files import documents

NOT_IN_A_NAMESPACE = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}  # they name `mantis` itself
STARTED = 600  # seconds, for the servers and the two Jobs on a busy machine


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The project in namespaces of the test, with a pod for commands in that of the steps.

    The runtime has the name of the first namespace.
    """

    kube: Kube
    namespace: str

    @property
    def steps(self) -> str:
        return f"{self.namespace}-steps"

    def in_pod(self, *command: str, check: bool = True) -> str:
        return self.kube.kubectl("-n", self.steps, "exec", "mantis", "--", *command, check=check)

    def little_run(self, image: str) -> list[str]:
        """The command of a run whose two ranks are pods of a TrainJob."""
        given = {
            "training.launcher": "trainjob",
            "training.nodes": "2",
            "training.gpus_per_node": "1",
            "cluster.namespace": self.namespace,
            "cluster.runtime": self.namespace,
            "cluster.image": image,
        }
        return ["mantis", "run", "demo", *LITTLE, *(f"--set={name}={value}" for name, value in given.items())]


def pod(image: str) -> dict[str, Any]:
    """The pod of the guide in which people type commands."""
    names = ("mantis-store", "mantis-mlflow")
    container = {
        "name": "mantis",
        "image": image,
        "command": ["tini", "--", "sleep", "infinity"],
        "workingDir": "/tmp",
        "env": [{"name": "MANTIS_STORE", "value": "s3://mantis"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
        "envFrom": [{"secretRef": {"name": name}} for name in names],
        "resources": {"requests": {"cpu": "50m", "memory": "512Mi"}},
        "securityContext": SECURITY,
        "volumeMounts": [
            {"name": "authorities", "mountPath": "/etc/mantis", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    spec = {
        "serviceAccountName": "mantis-steps",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
        "containers": [container],
        "volumes": [
            {"name": "authorities", "secret": {"secretName": "mantis-authorities", "optional": True}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {"metadata": {"name": "mantis"}, "spec": spec}


@contextmanager
def installed_with(kube: Kube, image: str, objects: list[dict[str, Any]]) -> Iterator[Installed]:
    """The objects of an overlay in namespaces of the test, with the pod for commands."""
    name = new_name()
    made = Installed(kube=kube, namespace=name)
    with applied(kube, yaml.safe_dump_all(moved(objects, name)), name):
        kube.kubectl("-n", name, "wait", "--for=condition=complete", "job", "--all", f"--timeout={STARTED}s")
        kube.core.create_namespaced_pod(made.steps, pod(image))
        kube.kubectl("-n", made.steps, "wait", "--for=condition=ready", "pod/mantis", f"--timeout={STARTED}s")
        yield made


def new_name() -> str:
    """A name for namespaces and the runtime of one test."""
    return f"mantis-test-{uuid4().hex[:8]}"


@contextmanager
def applied(kube: Kube, text: str, name: str) -> Iterator[None]:
    """Apply objects that `moved` gave this name, and delete their namespaces and runtime at the end."""
    try:
        kube.kubectl("apply", "-f", "-", stdin=text)
        yield
    finally:
        kube.kubectl("delete", "--wait=false", "clustertrainingruntime", name, "--ignore-not-found")
        kube.kubectl("delete", "--wait=false", "namespace", name, f"{name}-steps", "--ignore-not-found")


def moved(objects: list[dict[str, Any]], name: str, *, with_volumes: Collection[str] = ()) -> list[dict[str, Any]]:
    """The objects in the namespaces `name` and `name`-steps, with a runtime of this name.

    The StatefulSets of `with_volumes` keep their claims. The others lose their data with the pod.
    """
    text = yaml.safe_dump_all([each for each in objects if each["kind"] not in NOT_IN_A_NAMESPACE])
    for old in ("mantis-steps", "mantis"):
        text = text.replace(f"namespace: {old}\n", f"namespace: {old.replace('mantis', name, 1)}\n")
    text = text.replace("names: mantis-steps\n", f"names: {name}-steps\n")
    text = text.replace("mlflow.mantis", f"mlflow.{name}")
    found = documents(text)
    for each in found:
        if each["kind"] == "Namespace":
            each["metadata"]["name"] = each["metadata"]["name"].replace("mantis", name, 1)
        elif each["kind"] == "ClusterTrainingRuntime":
            each["metadata"]["name"] = name
        elif each["kind"] == "StatefulSet" and each["metadata"]["name"] not in with_volumes:
            del each["spec"]["volumeClaimTemplates"]
            each["spec"]["template"]["spec"]["volumes"].append({"name": "data", "emptyDir": {}})
    return found
