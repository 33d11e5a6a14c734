"""The admission policies on the real API server: a job sets what is on their lists, and each attack is refused."""

import json
from copy import deepcopy
from typing import Any

import pytest
import yaml

from components.training.launch.trainjob_spec import GROUP, PLURAL, VERSION, train_job
from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store
from tests.cluster.conftest import RECIPE
from tests.helpers.kubectl import Kube

LAUNCHER = "system:serviceaccount:mantis:mantis-launcher"
DIGEST = "@sha256:" + "0" * 64
PARAMETERS = ("-n", "mantis", "patch", "configmap", "mantis-trainjobs", "--type=merge", "-p")
KUEUE = {"kueue.x-k8s.io/podset": "node"}
# What Kueue 0.17 writes when it admits a job (pkg/controller/jobs/trainjob).
KUEUES_PATCH: dict[str, Any] = {
    "metadata": {"labels": KUEUE, "annotations": {"kueue.x-k8s.io/workload": "trainjob-a"}},
    "spec": {
        "nodeSelector": {"cloud.example.org/pool": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "schedulingGates": [{"name": "kueue.x-k8s.io/topology"}],
    },
}
SECRET_VOLUME = {"name": "root", "secret": {"secretName": "mantis-minio-root"}}
POD_SPECS: dict[str, Any] = {
    "volumes": [SECRET_VOLUME],
    "serviceAccountName": "mantis-bootstrap",
    "initContainers": [{"name": "any"}],
    "containers": [{"name": "node", "volumeMounts": [{"name": "scratch", "mountPath": "/any"}]}],
    "imagePullSecrets": [{"name": "mantis-minio-root"}],
    "securityContext": {"runAsUser": 0},
    "affinity": {"podAntiAffinity": {}},
    "terminationGracePeriodSeconds": 86400,
    "tolerations of everything": {"tolerations": [{"operator": "Exists"}]},
    "tolerations of the control plane": {
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]
    },
    "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
}
ENDPOINT = {"app.kubernetes.io/name": "mlflow", "mantis-kfp/service": "mlflow"}


def patch(pod: dict[str, Any], **levels: Any) -> dict[str, Any]:
    """A patch of the runtime with this pod template; `job` and `jobset` are metadata of the objects above it."""
    job = {"name": "node", "template": {"spec": {"template": pod}}}
    if "job" in levels:
        job["template"] |= {"metadata": levels["job"]}
    template: dict[str, Any] = {"spec": {"replicatedJobs": [job]}}
    if "jobset" in levels:
        template |= {"metadata": levels["jobset"]}
    return {"runtimePatches": [{"manager": "test/any", "trainingRuntimeSpec": {"template": template}}]}


def attack(name: str) -> dict[str, Any]:
    value = POD_SPECS[name]
    return patch({"spec": value if " of " in name else {name: value}})


ATTACKS: dict[str, dict[str, Any]] = {
    **{name: attack(name) for name in POD_SPECS},
    "an endpoint of MLflow": patch({"metadata": {"labels": ENDPOINT}}),
    "the role of make-secrets": patch({"metadata": {"labels": {"mantis-kfp/role": "make-secrets"}}}),
    "an annotation of the pod": patch({"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "any"}}}),
    "the name of the pod": patch({"metadata": {"name": "any"}}),
    "a finalizer of the pod": patch({"metadata": {"finalizers": ["any.org/any"]}}),
    "a label of the Job": patch({}, job={"labels": {"a": "b"}}),
    "an annotation of the JobSet": patch({}, jobset={"annotations": {"any.org/exclusive-topology": "a"}}),
    "a label of the JobSet": patch({}, jobset={"labels": KUEUE}),
    "the name of the JobSet": patch({}, jobset={"name": "any"}),
    "a finalizer of the JobSet": patch({}, jobset={"finalizers": ["any.org/any"]}),
}  # fmt: skip


@pytest.fixture
def job(image_name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A job as the launcher makes it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing asks the store
    recipe = parse_recipe(RECIPE, origin="test", overrides={"cluster.image": image_name, "cluster.queue": "any"})
    return train_job(Run(id="test-admission", store=open_store("s3://mantis/test"), recipe=recipe), "0" * 64)


@pytest.fixture
def image_name() -> str:
    return "registry.example.org/mantis/train:1"


@pytest.fixture(scope="module")
def launcher(kube: Kube, platform: float) -> Any:
    """A client with the launcher's account, which the policies judge; kubectl would need a process per request."""
    from kubernetes import client

    api = client.ApiClient()
    api.set_default_header("Impersonate-User", LAUNCHER)
    return client.CustomObjectsApi(api)


def said(launcher: Any, job: dict[str, Any]) -> str:
    """What the API server says to the launcher's account that creates `job`."""
    from kubernetes.client.exceptions import ApiException

    try:
        launcher.create_namespaced_custom_object(GROUP, VERSION, "mantis", PLURAL, job, dry_run="All")
    except ApiException as error:
        return str(json.loads(error.body)["message"])
    return "created"


@pytest.mark.parametrize("what", ATTACKS)
def test_a_job_decides_its_code_and_nothing_else(launcher: Any, job: dict[str, Any], what: str) -> None:
    assert "created" in said(launcher, job)
    refused = said(launcher, job | {"spec": job["spec"] | ATTACKS[what]})
    assert "denied request: spec.runtimePatches may" in refused, refused


def test_what_kueue_writes_is_taken(launcher: Any, job: dict[str, Any]) -> None:
    job["metadata"]["labels"] |= {"kueue.x-k8s.io/priority-class": "training"}
    # Its webhook labels the JobSet when the job is created (trainjob_webhook.go).
    queued = patch(deepcopy(KUEUES_PATCH), jobset={"labels": {"kueue.x-k8s.io/queue-name": "any"}})
    assert "created" in said(launcher, job | {"spec": job["spec"] | queued})


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        ("labels", {"mantis-kfp/run": "a"}, {"mantis-kfp/service": "mlflow"}),
        ("labels", KUEUE, {"app.kubernetes.io/name": "mlflow"}),
        ("annotations", {"mantis-kfp/recipe": "demo"}, {"argocd.argoproj.io/tracking-id": "a"}),
        ("annotations", KUEUE, {"kueue.x-k8s.io.example.org/a": "b"}),
    ],
)
def test_a_jobs_own_labels_are_on_a_list(
    launcher: Any, job: dict[str, Any], field: str, taken: dict[str, str], refused: dict[str, str]
) -> None:
    before = job["metadata"][field]
    job["metadata"][field] = before | taken
    assert "created" in said(launcher, job)
    job["metadata"][field] = before | refused
    assert f"denied request: metadata.{field} may hold" in said(launcher, job)


def test_every_field_that_trainer_lets_a_job_patch_is_judged(kube: Kube, platform: float) -> None:
    """A Trainer with one more field fails here, before somebody finds out what it may do."""
    text = kube.kubectl("get", "crd", "trainjobs.trainer.kubeflow.org", "-o", "json")
    (version,) = json.loads(text)["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert spec.keys() == {
        "activeDeadlineSeconds", "initializer", "managedBy", "runtimePatches", "runtimeRef", "suspend", "trainer",
    }  # fmt: skip
    patched = spec["runtimePatches"]["items"]["properties"]["trainingRuntimeSpec"]["properties"]
    assert patched.keys() == {"template"}
    jobset = patched["template"]["properties"]
    assert jobset.keys() == {"metadata", "spec"}
    node = jobset["spec"]["properties"]["replicatedJobs"]["items"]["properties"]["template"]["properties"]
    assert node.keys() == {"metadata", "spec"}
    pod = node["spec"]["properties"]["template"]["properties"]
    assert pod.keys() == {"metadata", "spec"}
    assert pod["metadata"]["properties"].keys() == {"annotations", "finalizers", "labels", "name", "namespace"}
    judged = {name.partition(" of ")[0] for name in POD_SPECS} | KUEUES_PATCH["spec"].keys()
    assert pod["spec"]["properties"].keys() == judged


@pytest.fixture(scope="module")
def strict(kube: Kube, platform: float) -> Any:
    """A policy with a registry and digests, as an overlay of a company sets it."""
    set_to = {"registries": "registry.example.org/mantis ghcr.io", "digests": "required", "keys": "team"}
    kube.kubectl(*PARAMETERS, json.dumps({"data": set_to}))
    yield
    kube.kubectl(*PARAMETERS, json.dumps({"data": dict.fromkeys(set_to, "")}))


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("registry.example.org/mantis/train" + DIGEST, ""),
        ("ghcr.io/any/any:1" + DIGEST, ""),
        ("registry.example.org/mantis/train:1", "has no digest"),
        ("registry.example.org/mantis/train:1@sha256:0", "has no digest"),
        ("docker.io/attacker/x" + DIGEST, "is not from registry.example.org/mantis, ghcr.io"),
        ("registry.example.org/mantis-evil/x" + DIGEST, "is not from"),
        ("ghcr.io.example.com/x" + DIGEST, "is not from"),
    ],
)
def test_an_overlay_limits_registries_and_demands_digests(
    kube: Kube, launcher: Any, strict: None, job: dict[str, Any], image: str, problem: str
) -> None:
    job["spec"]["trainer"]["image"] = image
    job["metadata"]["labels"]["team"] = "a"
    # The API server reads the parameters a moment after they were written.
    kube.until(f"{image}: {problem}", lambda: (problem or "created") in said(launcher, job), 20)


def pod(labels: dict[str, str], owner: str) -> dict[str, Any]:
    spec = yaml.safe_load(
        """
        automountServiceAccountToken: false
        securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
        containers:
          - {name: any, image: any, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
        """
    )
    owners = [{"apiVersion": "any/v1", "kind": owner, "name": "any", "uid": "any"}]
    metadata = {"name": "any", "namespace": "mantis", "labels": labels, "ownerReferences": owners}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("labels", "owner", "problem"),
    [
        ({"mantis-kfp/service": "minio"}, "StatefulSet", ""),
        ({"mantis-kfp/service": "minio"}, "Job", "the label mantis-kfp/service is for the pods of MinIO and MLflow"),
        ({"mantis-kfp/role": "make-secrets"}, "Job", ""),
        ({"mantis-kfp/role": "rank", "jobset.sigs.k8s.io/jobset-name": "a"}, "Job", ""),
        ({"mantis-kfp/role": "make-secrets", "jobset.sigs.k8s.io/jobset-name": "a"}, "Job", "has the role of a rank"),
    ],
)
def test_no_pod_of_a_job_takes_the_place_of_a_service(
    kube: Kube, platform: float, labels: dict[str, str], owner: str, problem: str
) -> None:
    """The second line of defence: even a runtime that an administrator got wrong makes no endpoint of MLflow."""
    from kubernetes.client.exceptions import ApiException

    try:
        kube.core.create_namespaced_pod("mantis", pod(labels, owner), dry_run="All")
        text = "created"
    except ApiException as error:
        text = str(error.body)
    assert (problem or "created") in text, text


def test_services_select_a_label_that_no_job_can_bear(kube: Kube, platform: float) -> None:
    services = kube.core.list_namespaced_service("mantis").items
    ours = {each.metadata.name: each.spec.selector.get("mantis-kfp/service") for each in services}
    assert ours.items() >= {"minio": "minio", "mlflow": "mlflow"}.items()
