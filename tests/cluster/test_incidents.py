"""Rows of the table in docs/how-to/operate.md, provoked: what a person sees is there, and the remedy helps."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from components.training.launch.trainjob_spec import applied_job
from mantis.errors import TrainingError
from tests.cluster.conftest import RUNTIME, Following, RunInBucket
from tests.cluster.test_image import SECURITY
from tests.helpers.kubectl import Kube
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LOCAL = ROOT / "manifests" / "overlays" / "local"
OURS = ("-n", "mantis")
SMALL = f"{RUNTIME}-small"
UNKNOWN = "mlflow.example.org"


def seen_in_table(words: str) -> str:
    """These words, which a row of the table has in its first column."""
    table = (ROOT / "docs" / "how-to" / "operate.md").read_text().partition("## When something breaks")[2]
    assert [line for line in table.splitlines() if line.startswith("|") and words in line.split("|")[1]], words
    return words


@contextmanager
def followed(kube: Kube, run: Any) -> Iterator[Following]:
    """A job that is followed, and deleted at the end."""
    following = Following(run)
    try:
        yield following
    finally:
        kube.kubectl(*OURS, "delete", "trainjob", following.name, "--ignore-not-found")
        following.join()


def test_an_image_that_is_not_in_the_registry(
    kube: Kube, platform: float, run_in_bucket: RunInBucket, image: str, said: Callable[..., str]
) -> None:
    never_built = f"{image.rpartition(':')[0]}:never-built"
    with followed(kube, run_in_bucket({"cluster.image": never_built})):
        text = said(seen_in_table("ImagePullBackOff"), seconds=180)
    assert never_built in text


def copy_of(kube: Kube, runtime: str) -> dict[str, Any]:
    """A runtime of the cluster under the name SMALL."""
    found = json.loads(kube.kubectl("get", "clustertrainingruntime", runtime, "-o", "json"))
    metadata = {"name": SMALL, "labels": found["metadata"].get("labels", {})}
    return {key: found[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata}


def pod_of(runtime: dict[str, Any]) -> dict[str, Any]:
    """The specification of a runtime's pods."""
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    found: dict[str, Any] = node["template"]["spec"]["template"]["spec"]
    return found


def test_ranks_without_enough_memory(kube: Kube, platform: float, run_in_bucket: RunInBucket) -> None:
    """The kernel kills them when they import their libraries."""
    seen_in_table("out of memory, exit code 137")
    runtime = copy_of(kube, "mantis-deepspeed")
    pod_of(runtime)["containers"][0]["resources"] = {
        "requests": {"cpu": "100m", "memory": "100Mi"},
        "limits": {"memory": "100Mi"},
    }
    try:
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(runtime))
        error = Following(run_in_bucket({"cluster.runtime": SMALL})).join()
        assert isinstance(error, TrainingError)
        assert "was killed: out of memory" in error.problem
    finally:
        kube.kubectl("delete", "clustertrainingruntime", SMALL, "--ignore-not-found")


ASKS_FOR_MORE = {
    "Insufficient memory": {"memory": "9000Gi"},
    "rdma/...": {"rdma/hca_shared_devices_a": "2"},
    "node affinity": {},
}


@pytest.mark.parametrize("words", ASKS_FOR_MORE)
def test_an_overlay_that_asks_for_more_than_a_node_has(
    kube: Kube, gpu_nodes: Any, run_in_bucket: RunInBucket, said: Callable[..., str], words: str
) -> None:
    """The job waits and says why. With a runtime that fits, the same run trains."""
    fitting = copy_of(kube, RUNTIME)
    asking = copy_of(kube, RUNTIME)
    pod = pod_of(asking)
    for kind in ("requests", "limits"):
        pod["containers"][0]["resources"][kind] |= ASKS_FOR_MORE[words]
    if not ASKS_FOR_MORE[words]:
        pod["nodeSelector"] = {"nvidia.com/gpu.product": "of-another-kind"}
    run = run_in_bucket({"training.nodes": "2", "training.gpus_per_node": "8", "cluster.runtime": SMALL})
    try:
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(asking))
        with followed(kube, run):
            said(seen_in_table(words).partition("...")[0], seconds=60)
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(fitting))
        assert Following(run).join() is None
    finally:
        kube.kubectl("delete", "clustertrainingruntime", SMALL, "--ignore-not-found")


def test_a_quota_that_refuses_pods(
    kube: Kube, gpu_nodes: Any, run_in_bucket: RunInBucket, said: Callable[..., str]
) -> None:
    """The Warning says so, and the pods come when the quota is larger."""
    seen_in_table("no pods, and a Warning")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "mantis"}}
    run = run_in_bucket({"training.nodes": "2", "training.gpus_per_node": "8", "cluster.runtime": RUNTIME})
    try:
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota | {"spec": {"hard": {"pods": "1"}}}))
        following = Following(run)
        assert "exceeded quota: few" in said("exceeded quota", seconds=120)
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota | {"spec": {"hard": {"pods": "100"}}}))
        assert following.join() is None
    finally:
        kube.kubectl(*OURS, "delete", "resourcequota", "few", "--ignore-not-found")


def test_a_failed_job_that_is_applied_again(kube: Kube, platform: float, run_in_bucket: RunInBucket) -> None:
    """Its run is not in the store, which no further attempt would change."""
    seen_in_table("TrainJob `Failed`, and apply says `unchanged`")
    job = applied_job(run_in_bucket())
    name = job["metadata"]["name"]
    apply = ("apply", "-f", "-")

    def failed() -> bool:
        path = 'jsonpath={.status.conditions[?(@.type=="Failed")].status}'
        return kube.kubectl(*OURS, "get", "trainjob", name, "-o", path) == "True"

    try:
        assert "created" in kube.kubectl(*apply, stdin=yaml.safe_dump(job))
        kube.until("the end of the job", failed, 300)
        assert "unchanged" in kube.kubectl(*apply, stdin=yaml.safe_dump(job))
        kube.kubectl(*OURS, "delete", "trainjob", name)
        assert "created" in kube.kubectl(*apply, stdin=yaml.safe_dump(job))
    finally:
        kube.kubectl(*OURS, "delete", "trainjob", name, "--ignore-not-found")


def test_a_step_without_credentials(kube: Kube, platform: float, image: str) -> None:
    """The Secret of the steps' namespace was deleted. The Job make-secrets copies it there again."""
    name, steps = f"step-{uuid4().hex[:8]}", ("-n", "mantis-steps")
    container = {
        "name": "step",
        "image": image,
        "command": ["sleep", "5"],
        "envFrom": [{"secretRef": {"name": "mantis-store"}}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": SECURITY,
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "mantis-steps"}}
    pod["spec"] = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}

    def state() -> str:
        return kube.kubectl(*steps, "get", "pod", name, "--no-headers")

    kube.kubectl(*steps, "delete", "secret", "mantis-store")
    try:
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
        words = seen_in_table("CreateContainerConfigError")
        kube.until("the error of the pod", lambda: words in state(), 120)
        kube.kubectl(*OURS, "delete", "job", "make-secrets", "--ignore-not-found")
        kube.kubectl("apply", "-k", LOCAL)
        kube.until("the end of the step", lambda: "Completed" in state(), 240)
    finally:
        kube.kubectl(*steps, "delete", "pod", name, "--wait=false")


def test_a_name_that_mlflow_does_not_know(kube: Kube, services: dict[str, str], tmp_path: Path) -> None:
    def answer() -> tuple[int, str]:
        request = urllib.request.Request(f"{services['MLFLOW_TRACKING_URI']}/", headers={"Host": UNKNOWN})
        try:
            with urllib.request.urlopen(request, timeout=30) as given:
                return given.status, given.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:  # while it restarts
            return 0, ""

    status, text = answer()
    assert seen_in_table("403 Invalid Host header") in f"{status} {text}"
    (known,) = [
        line.partition("=")[2]
        for line in (ROOT / "manifests" / "base" / "mlflow" / "settings.env").read_text().splitlines()
        if line.startswith("MLFLOW_SERVER_ALLOWED_HOSTS=")
    ]
    hosts = f"MLFLOW_SERVER_ALLOWED_HOSTS={known},{UNKNOWN}"
    more = {"name": "mlflow-settings", "namespace": "mantis", "behavior": "merge", "literals": [hosts]}
    overlay = {"resources": [os.path.relpath(LOCAL, tmp_path)], "configMapGenerator": [more]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    kube.kubectl("apply", "-k", tmp_path)
    try:
        kube.until("the wish for a login", lambda: answer()[0] == 401, 240)
    finally:
        kube.kubectl("apply", "-k", LOCAL)
        kube.kubectl(*OURS, "rollout", "status", "statefulset/mlflow", "--timeout=240s")


def test_a_volume_without_a_storage_class(kube: Kube, platform: float, namespace: str) -> None:
    """MinIO's pod waits for its claim. A claim that names a class takes it off the list of those that wait."""
    seen_in_table("minio or mlflow `Pending`")
    here = ("-n", namespace)
    default = "storageclass.kubernetes.io/is-default-class"
    (name,) = kube.kubectl("get", "storageclass", "-o", "name").split()
    items = [item for item in yaml.safe_load_all(kube.kubectl("kustomize", LOCAL)) if item["kind"] == "StatefulSet"]
    (minio,) = [item for item in items if item["metadata"]["name"] == "minio"]
    minio["metadata"]["namespace"] = namespace

    def scheduled() -> dict[str, Any]:
        status = json.loads(kube.kubectl(*here, "get", "pod", "minio-0", "-o", "json"))["status"]
        return next((found for found in status.get("conditions", ()) if found["type"] == "PodScheduled"), {})

    kube.kubectl("annotate", "--overwrite", name, f"{default}=false")
    try:
        kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(minio))
        kube.until("the pod", lambda: "minio-0" in kube.kubectl(*here, "get", "pods", "-o", "name"), 60)
        kube.until("the wait for the claim", lambda: scheduled().get("status") == "False", 60)
        assert "unbound immediate PersistentVolumeClaims" in scheduled()["message"]
        time.sleep(5)  # a change during the scheduler's first attempt is seen five minutes later
        wanted = json.dumps({"spec": {"storageClassName": name.rpartition("/")[2]}})
        kube.kubectl(*here, "patch", "pvc", "data-minio-0", "-p", wanted)
        kube.until("a place for the pod", lambda: scheduled().get("status") == "True", 120)
    finally:
        kube.kubectl("annotate", "--overwrite", name, f"{default}=true")


def test_users_that_cannot_be_made_with_another_password(kube: Kube, services: dict[str, str], platform: float) -> None:
    """MinIO's root account has a new password, and MinIO runs with the old one until it is started again."""
    seen_in_table("make-users fails")

    def log() -> str:
        return kube.kubectl(*OURS, "logs", "job/make-users", check=False)

    kube.kubectl(
        *OURS, "delete", "secret/mantis-minio-root", "job/make-secrets", "job/make-users", "--ignore-not-found"
    )
    kube.kubectl("apply", "-k", LOCAL)
    kube.until("the refusal", lambda: "minio is not there yet" in log(), 180)
    assert "SignatureDoesNotMatch" in log() or "InvalidAccessKeyId" in log()
    kube.kubectl(*OURS, "rollout", "restart", "statefulset/minio")
    kube.until("the Jobs of the overlay", kube.jobs_are_done, 300)
    assert "minio: done" in log()
