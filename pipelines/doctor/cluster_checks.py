"""Check everything that this project needs from a cluster, with the permissions of the current account."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.training.launch.kubernetes_client import REQUEST_SECONDS, Cluster, connect, reason_of
from components.training.launch.trainjob import remove
from components.training.launch.trainjob_spec import GROUP, PLURAL, VERSION, probe_job
from mantis.config.cluster_settings import GPU, ClusterSettings
from mantis.errors import ConfigError, MantisError
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import tracking_uri
from pipelines.doctor.machine_checks import Finding
from pipelines.doctor.meeting import judge_meeting

OLDEST = (1, 31)
KINDS = (
    (GROUP, VERSION, "trainjobs", "Install Kubeflow Trainer >= 2.3."),
    (GROUP, VERSION, "clustertrainingruntimes", "Install Kubeflow Trainer >= 2.3."),
    ("jobset.x-k8s.io", "v1alpha2", "jobsets", "Install JobSet, which Kubeflow Trainer's manifests contain."),
)
# The tested versions, by the names of the controllers' images.
TESTED = {"trainer-controller-manager": "v2.3.0", "jobset": "v0.12.0"}
# The permissions of launching: the Role mantis-launcher in manifests/base/access.yaml.
RIGHTS = (
    (GROUP, PLURAL, "", ("create", "get", "list", "delete")),
    ("", "pods", "", ("list",)),
    ("", "pods", "log", ("get",)),
    ("", "events", "", ("list",)),
)
MEETING_SECONDS = 300.0
PATIENCE_SECONDS = 60.0  # for an API server that does not answer
REQUEST = {"_request_timeout": REQUEST_SECONDS}


def examine_cluster(cluster: ClusterSettings, store_url: str, *, nodes: int) -> list[Finding]:
    """Return every finding, cheap ones first. The all-reduce starts a TrainJob of `nodes` pods and deletes it."""
    try:
        api = connect()
    except ConfigError as error:
        return [Finding(what="API server", ok=False, found=error.problem, remedy=error.remedy)]
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("API server", lambda: _server(api)),
        *((kind[2], lambda kind=kind: _kind(api, *kind)) for kind in KINDS),
        ("controllers", lambda: _controllers(api)),
        ("runtime", lambda: _runtime(api, cluster)),
        ("rights", lambda: _rights(api, cluster.namespace)),
        ("GPUs", lambda: _gpus(api)),
        ("MLflow", lambda: _mlflow(store_url)),
        ("all-reduce", lambda: _meeting(api, cluster, store_url, nodes)),
    ]
    return [_looked(what, check) for what, check in checks]


def _looked(what: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except ApiException as error:
        remedy = (
            "Ask an administrator for the permission." if error.status == 403 else "Correct what the message names."
        )
        return Finding(what=what, ok=None if error.status == 403 else False, found=reason_of(error), remedy=remedy)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        return Finding(what=what, ok=False, found=f"no answer: {error}", remedy="Check KUBECONFIG and the network.")
    except MantisError as error:
        return Finding(what=what, ok=False, found=error.problem, remedy=error.remedy)


def _server(api: client.ApiClient) -> Finding:
    version = client.VersionApi(api).get_code(**REQUEST)
    numbers = (int(version.major), int("".join(filter(str.isdigit, version.minor))))
    remedy = f"Kubeflow Trainer needs Kubernetes >= {OLDEST[0]}.{OLDEST[1]}."
    return Finding(what="API server", ok=numbers >= OLDEST, found=version.git_version, remedy=remedy)


def _kind(api: client.ApiClient, group: str, version: str, plural: str, remedy: str) -> Finding:
    try:
        kinds = client.CustomObjectsApi(api).get_api_resources(group, version, **REQUEST)
        served = any(resource.name == plural for resource in kinds.resources)
    except ApiException as error:
        if error.status != 404:
            raise
        served = False
    found = f"{group}/{version}" if served else f"{group}/{version} is not served"
    return Finding(what=plural, ok=served, found=found, remedy=remedy)


def _controllers(api: client.ApiClient) -> Finding:
    """Report the versions of Trainer and JobSet, read from images: API versions stay the same for years."""
    deployments = client.AppsV1Api(api).list_deployment_for_all_namespaces(**REQUEST).items
    images = [part.image for each in deployments for part in each.spec.template.spec.containers]
    names = [image.partition("@")[0].rsplit("/", 1)[-1].partition(":") for image in images]
    there = {name: tag for name, _, tag in names if name in TESTED}
    tested = ", ".join(f"{name} {tag}" for name, tag in TESTED.items())
    if there == TESTED:
        return Finding(what="controllers", ok=True, found=tested)
    found = ", ".join(f"{name} {there.get(name) or 'not found'}" for name in TESTED)
    return Finding(what="controllers", ok=None, found=found, remedy=f"Use the tested versions {tested} if others fail.")


def _runtime(api: client.ApiClient, cluster: ClusterSettings) -> Finding:
    try:
        client.CustomObjectsApi(api).get_cluster_custom_object(
            GROUP, VERSION, "clustertrainingruntimes", cluster.runtime, **REQUEST
        )
    except ApiException as error:
        if error.status != 404:
            raise
        remedy = "Run kubectl apply -k manifests/overlays/..., or choose another with --set cluster.runtime=..."
        return Finding(what="runtime", ok=False, found=f"no {cluster.runtime}", remedy=remedy)
    return Finding(what="runtime", ok=True, found=cluster.runtime)


def _rights(api: client.ApiClient, namespace: str) -> Finding:
    missing = [
        f"{verb} {resource}{'/' + part if part else ''}"
        for group, resource, part, verbs in RIGHTS
        for verb in verbs
        if not _may(api, namespace, group=group, resource=resource, subresource=part, verb=verb)
    ]
    found = f"in {namespace}: " + (f"not {', '.join(missing)}" if missing else "every permission for launching")
    remedy = "Bind your account to the Role mantis-launcher (manifests/base/access.yaml)."
    return Finding(what="rights", ok=not missing, found=found, remedy=remedy)


def _may(api: client.ApiClient, namespace: str, **asked: str) -> bool:
    review = {"spec": {"resourceAttributes": {"namespace": namespace, **asked}}}
    return bool(client.AuthorizationV1Api(api).create_self_subject_access_review(review, **REQUEST).status.allowed)


def _gpus(api: client.ApiClient) -> Finding:
    nodes = client.CoreV1Api(api).list_node(**REQUEST).items
    counts = [int(node.status.allocatable.get(GPU, 0)) for node in nodes]
    found = f"{sum(counts)} on {sum(count > 0 for count in counts)} of {len(nodes)} nodes"
    return Finding(what="GPUs", ok=True if sum(counts) else None, found=found)


def _mlflow(store_url: str) -> Finding:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = tracking_uri(open_store(store_url))
    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except MlflowException as error:
        remedy = "Check MLFLOW_TRACKING_URI, _USERNAME and _PASSWORD, and the server's allowed hosts."
        return Finding(what="MLflow", ok=False, found=f"{uri}: {str(error).splitlines()[0]}", remedy=remedy)
    return Finding(what="MLflow", ok=True, found=uri)


def _meeting(api: client.ApiClient, settings: ClusterSettings, store_url: str, nodes: int) -> Finding:
    """Start pods that meet like ranks do, on all GPUs: this tests names, policies, Secrets, the store and the image."""
    cluster = Cluster(settings.namespace, patience=PATIENCE_SECONDS)
    per_node = _gpus_of_a_node(api, settings)
    job = probe_job(settings, store_url, name=f"doctor-{uuid.uuid4().hex[:8]}", nodes=nodes, per_node=per_node)
    name = job["metadata"]["name"]
    uid = cluster.create(job)
    if uid is None:
        raise RuntimeError(f"TrainJob {name} exists already")
    try:
        figures, said = _figures(cluster, name)
    finally:
        remove(cluster, name, uid)
    if figures is None:
        remedy = "Check the image, the runtime's resources and the network policies with `kubectl describe`."
        return Finding(what="all-reduce", ok=False, found=said, remedy=remedy)
    return judge_meeting(figures, ranks=nodes * per_node)


def _gpus_of_a_node(api: client.ApiClient, settings: ClusterSettings) -> int:
    """The ranks of a node: one for each GPU that the job or its runtime gives to a node; 1 without GPUs."""
    if GPU in settings.resources:
        return max(1, int(settings.resources[GPU]))
    runtime = client.CustomObjectsApi(api).get_cluster_custom_object(
        GROUP, VERSION, "clustertrainingruntimes", settings.runtime, **REQUEST
    )
    jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    containers = [part for job in jobs for part in job["template"]["spec"]["template"]["spec"]["containers"]]
    limits = [part.get("resources", {}).get("limits", {}).get(GPU, 0) for part in containers]
    return max(1, *map(int, limits))


def _figures(cluster: Cluster, name: str) -> tuple[dict[str, Any] | None, str]:
    """Return the JSON that rank 0 printed; else None, and the reason why the pods wait or have died."""
    until, said = time.monotonic() + MEETING_SECONDS, "no pod was created"
    while time.monotonic() < until:
        for pod in cluster.pods(name):
            said = f"{pod.name}: {pod.waiting or pod.message or pod.phase}"
            lines = (
                [line for line in cluster.tail(pod.name, 20) if line.startswith('{"ranks"')] if pod.node == 0 else []
            )
            if lines:
                return json.loads(lines[0]), ""
            if pod.exit_code:
                return None, said
        time.sleep(1.0)
    return None, f"not within {MEETING_SECONDS:.0f} s; {said}"
