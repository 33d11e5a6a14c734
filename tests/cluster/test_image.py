"""The whole job in one pod of the image: no rights, no writable file system but two empty folders."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT

SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
RUN = (
    "run",
    "demo",
    "--store=file:///store",
    "--set=data.generated_conversations=320",
    "--set=data.skills=[single]",
    "--set=evaluation.benchmarks=[demo-single]",
    "--set=evaluation.samples_per_skill=20",
    "--set=training.epochs=1",
)
(CLUSTER_BASE,) = re.findall(r"^CLUSTER_BASE := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
DEADLINE = 600  # seconds; most of it is the first pull of the image


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE + 60)
def test_the_whole_job_in_one_pod(kube: Kube, image: str, namespace: str) -> None:
    from kubernetes import client

    core, batch = client.CoreV1Api(), client.BatchV1Api()
    container = {
        "name": "mantis",
        "image": image,
        "command": ["tini", "--", "mantis"],
        "args": list(RUN),
        "workingDir": "/tmp",
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}},
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "store", "mountPath": "/store"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in ("tmp", "store")],
    }
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": DEADLINE, "template": {"spec": pod}}
    batch.create_namespaced_job(namespace, {"metadata": {"name": "demo"}, "spec": spec})
    state = None
    while state is None or not (state.succeeded or state.failed):
        time.sleep(2)
        state = batch.read_namespaced_job_status("demo", namespace).status
    (made,) = core.list_namespaced_pod(namespace, label_selector="job-name=demo").items
    said = core.read_namespaced_pod_log(made.metadata.name, namespace)
    assert state.succeeded, said
    assert "report  file:///store/reports/" in said


def test_a_change_of_the_code_runs_in_a_pod_within_90_seconds(
    kube: Kube, image: str, test_cluster: Callable[..., None], namespace: str, tmp_path: Path
) -> None:
    """Changed here, built, pushed, pulled: what a developer waits for."""
    from kubernetes import client

    tree = tmp_path / "tree"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    word = f"changed-{uuid4().hex}"
    began = time.monotonic()
    with (tree / "mantis" / "errors.py").open("a") as code:
        code.write(f'\nCHANGED = "{word}"\n')
    test_cluster("build", "mantis/train:changed", str(tree), "--file", str(tree / "docker" / "Dockerfile"),
                 "--build-arg", "TARGET=train", "--build-arg", "CODE_VERSION=changed",
                 "--build-arg", f"BASE={CLUSTER_BASE}")  # fmt: skip
    container = {
        "name": "mantis",
        "image": "mantis/train:changed",
        "imagePullPolicy": "Always",
        "command": ["python3", "-c", "from mantis.errors import CHANGED; print(CHANGED)"],
        "securityContext": SECURITY,
    }
    core = client.CoreV1Api()
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "changed"}, "spec": spec})

    def ended() -> bool:
        return core.read_namespaced_pod_status("changed", namespace).status.phase in ("Succeeded", "Failed")

    kube.until("the pod has ended", ended, 120)
    seconds = time.monotonic() - began
    assert word in core.read_namespaced_pod_log("changed", namespace)
    print(f"from a change of the code to a pod that runs it: {seconds:.0f} s")
    assert seconds < 90
