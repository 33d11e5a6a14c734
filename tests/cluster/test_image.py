"""The whole job in one pod of the image: no rights, no writable file system but two empty folders."""

import json
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


def build(test_cluster: Callable[..., None], tag: str, tree: Path, **arguments: str) -> None:
    """Build and push the image, with Debian as the base."""
    given = {"TARGET": "train", "BASE": CLUSTER_BASE} | arguments
    more = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    test_cluster("build", tag, str(tree), "--file", str(tree / "docker" / "Dockerfile"), *more)


def said_by(kube: Kube, namespace: str, image: str, code: str, seconds: float) -> str:
    """The output of Python code in a pod of the image."""
    container = {
        "name": "mantis",
        "image": image,
        "imagePullPolicy": "Always",
        "command": ["python3", "-c", code],
        "workingDir": "/tmp",
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    spec["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    name = f"python-{uuid4().hex[:8]}"
    kube.core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": spec})

    def phase() -> str:
        return str(kube.core.read_namespaced_pod_status(name, namespace).status.phase)

    kube.until("the pod has ended", lambda: phase() in ("Succeeded", "Failed"), seconds)
    said = str(kube.core.read_namespaced_pod_log(name, namespace))
    assert phase() == "Succeeded", said
    return said


def test_a_change_of_the_code_runs_in_a_pod_within_90_seconds(
    kube: Kube, image: str, test_cluster: Callable[..., None], namespace: str, tmp_path: Path
) -> None:
    """Changed here, built, pushed, pulled: what a developer waits for."""
    tree = tmp_path / "tree"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    word = f"changed-{uuid4().hex}"
    began = time.monotonic()
    with (tree / "mantis" / "errors.py").open("a") as code:
        code.write(f'\nCHANGED = "{word}"\n')
    build(test_cluster, "mantis/train:changed", tree, CODE_VERSION="changed")
    said = said_by(kube, namespace, "mantis/train:changed", "from mantis.errors import CHANGED; print(CHANGED)", 120)
    seconds = time.monotonic() - began
    assert word in said
    print(f"from a change of the code to a pod that runs it: {seconds:.0f} s")
    assert seconds < 90


# Imports every module of the project, and prints the versions of all packages and what the GPU variant adds.
IMPORTS = """
import importlib, json, os, pkgutil, re
from importlib.metadata import distributions
import components, mantis, pipelines
import deepspeed, pynvml, torch
from mantis.models.attention import kernel_name

def named(package):
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not each.name.endswith("__main__"):
            yield each.name

modules = [name for package in (mantis, components, pipelines) for name in named(package)]
for name in modules:
    importlib.import_module(name)
print(json.dumps({
    "modules": modules,
    "versions": {re.sub("[-_.]+", "-", each.metadata["Name"]).lower(): each.version for each in distributions()},
    "cuda": torch.version.cuda,
    "architectures": torch._C._cuda_getArchFlags(),
    "kernel": kernel_name(torch.device("cuda"), torch.bfloat16),
    "devices": os.environ["NVIDIA_VISIBLE_DEVICES"],
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_gpu_variant_has_its_packages_and_imports_every_module(
    kube: Kube, test_cluster: Callable[..., None], namespace: str
) -> None:
    """Everything of the GPU variant but CUDA's base and flash-attn, which needs nvcc."""
    build(test_cluster, "mantis/train:variant-gpu", ROOT, VARIANT="gpu", FLASH_ATTN="")
    found = json.loads(said_by(kube, namespace, "mantis/train:variant-gpu", IMPORTS, 900).splitlines()[-1])
    assert len(found["modules"]) > 200
    assert found["cuda"].startswith("13.")
    assert "sm_80" in found["architectures"]
    assert found["kernel"].startswith("varlen kernel of torch ")
    assert found["devices"] == "void"
    locked = requirements("train") + requirements("gpu")
    wanted = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", locked, re.MULTILINE))  # without those for other platforms
    assert {name: found["versions"].get(name) for name in wanted} == wanted
    assert {"torch", "deepspeed", "nvidia-ml-py", "mlflow", "kfp"} <= wanted.keys()
    assert "flash-attn" not in found["versions"]


def requirements(name: str) -> str:
    return (ROOT / "docker" / "requirements" / f"{name}.txt").read_text()
