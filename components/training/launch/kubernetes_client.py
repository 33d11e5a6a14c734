"""The few calls of the Kubernetes API that following a TrainJob needs. Each call waits while the server is down."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.training.launch.trainjob_spec import (
    GROUP,
    JOB_OF_POD,
    PLURAL,
    RUN_LABEL,
    TRAINING_LABEL,
    VERSION,
    label_of,
    stored_in,
)
from mantis.errors import ConfigError, TrainingError
from mantis.runs.step_runner import Run

logger = logging.getLogger(__name__)

T = TypeVar("T")
REQUEST_SECONDS = (5.0, 30.0)  # timeouts of connecting and of the response
LOG_SECONDS = 60.0  # of silence in a followed log, after which the log is requested again
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0
# A server that has just started refuses everybody until it has loaded the roles. It may refuse a known account, too.
REFUSED_SECONDS, KNOWN_REFUSED_SECONDS = 30.0, 300.0
CREATE_SECONDS = 600.0  # wait for at most this long to create a job, because nothing is running yet
TAIL_SECONDS = 15.0  # timeout of reading a log's end: the kubelet of a lost node never answers
ADMISSION = "denied the request"  # the final answer of a webhook, which shares its status with a missing permission
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
WORKLOADS = ("kueue.x-k8s.io", "v1beta2")
WORKLOAD_LABEL = "kueue.x-k8s.io/job-uid"  # Kueue's label of a Workload: the uid of its job
RESTART_ATTEMPT = "jobset.sigs.k8s.io/restart-attempt"


class ClusterError(TrainingError):
    """An answer of the API server that makes following impossible. The job itself may still run."""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The fields of a rank's pod that following needs. Times are those of the API server, in ISO 8601."""

    name: str
    uid: str
    node: int  # index among the job's nodes; node 0 holds rank 0
    attempt: int
    created: str
    phase: str
    waiting: str  # why it is not running yet; empty if it is
    ended: str = ""
    exit_code: int | None = None
    reason: str = ""  # of the termination, e.g. OOMKilled
    message: str = ""  # the content of the container's termination log


class Cluster:
    """The API server in one namespace. `patience` limits the seconds of waiting while it is down; None has no limit."""

    def __init__(self, namespace: str, *, patience: float | None = None) -> None:
        self.namespace, self._patience = namespace, patience
        self._known = False  # whether the server has accepted this account before
        connection = connect()
        self._objects = client.CustomObjectsApi(connection)
        self._core = client.CoreV1Api(connection)

    def create(self, job: dict[str, Any]) -> str | None:
        """Create the TrainJob and return its uid; None if one of that name exists.

        Raises:
            ConfigError: the API server refuses the job; the message gives the reason.
            TrainingError: the API server, or a webhook that it calls, did not answer for too long.
        """
        try:
            made = self._call(
                "create a TrainJob",
                self._objects.create_namespaced_custom_object,
                *self._address(),
                job,
                patience=CREATE_SECONDS,
            )
        except ApiException as error:
            if error.status == 409:
                return None
            raise ConfigError(
                f"The cluster refuses the TrainJob {job['metadata']['name']}: {reason_of(error)}",
                remedy="Check with `mantis doctor` that Kubeflow Trainer is installed, and that "
                f"`kubectl apply -k manifests/overlays/...` was run in {self.namespace}.",
            ) from None
        return str(made["metadata"]["uid"])

    def read(self, name: str) -> dict[str, Any] | None:
        """Read the TrainJob; None if it does not exist."""
        try:
            found: dict[str, Any] = self._call(
                "read a TrainJob", self._objects.get_namespaced_custom_object, *self._address(), name
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise _unexpected(error) from None
        return found

    def of_run(self, run: Run) -> list[dict[str, Any]]:
        """List every TrainJob that trains for a run, including manually applied ones.

        A run with the same id in another store is another run.

        Raises:
            ConfigError: this cluster has no TrainJobs.
        """
        jobs = self._with_label(RUN_LABEL, label_of(run.id))
        return [job for job in jobs if stored_in(job) == run.store.url]

    def of_training(self, training: str) -> list[dict[str, Any]]:
        """List every TrainJob that a launcher has created for a training, of any run.

        Raises:
            ConfigError: this cluster has no TrainJobs.
        """
        return self._with_label(TRAINING_LABEL, training)

    def _with_label(self, label: str, value: str) -> list[dict[str, Any]]:
        try:
            found: dict[str, Any] = self._call(
                "list TrainJobs",
                self._objects.list_namespaced_custom_object,
                *self._address(),
                label_selector=f"{label}={value}",
            )
        except ApiException as error:
            if error.status != 404:
                raise _unexpected(error) from None
            raise ConfigError(
                f"This cluster has no TrainJobs ({GROUP}/{VERSION}).",
                remedy="Install Kubeflow Trainer (docs/how-to/kubernetes.md), or set training.launcher = local.",
            ) from None
        jobs: list[dict[str, Any]] = found["items"]
        return jobs

    def delete(self, name: str, uid: str) -> None:
        """Delete the TrainJob `uid`, its pods first. A job that is gone, or has another uid, is left alone."""
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        try:
            self._call(
                "delete a TrainJob",
                self._objects.delete_namespaced_custom_object,
                *self._address(),
                name,
                body=options,
            )
        except ApiException as error:
            if error.status not in (404, 409):
                raise _unexpected(error) from None

    def pods(self, name: str) -> list[Pod]:
        """List the pods of a TrainJob, those of the newest attempt last."""
        try:
            listed = self._call(
                "list pods",
                self._core.list_namespaced_pod,
                self.namespace,
                label_selector=f"{JOB_OF_POD}={name}",
            )
        except ApiException as error:
            raise _unexpected(error) from None
        return sorted((_pod(item) for item in listed.items), key=lambda pod: (pod.attempt, pod.created, pod.node))

    def pods_of_training(self, training: str) -> list[str]:
        """List the pods of all jobs of a training, also of deleted ones: the names of these jobs end with it."""
        try:
            listed = self._call("list pods", self._core.list_namespaced_pod, self.namespace, label_selector=JOB_OF_POD)
        except ApiException as error:
            raise _unexpected(error) from None
        return [pod.metadata.name for pod in listed.items if pod.metadata.labels[JOB_OF_POD].endswith(f"-{training}")]

    def warning(self, job: dict[str, Any]) -> str:
        """Return the newest Warning event about a TrainJob or its objects, which explains missing pods.

        Empty if no such event exists, or if this account may not read events. Following works without it.
        """
        try:
            listed = self._call(
                "list events",
                self._core.list_namespaced_event,
                self.namespace,
                field_selector="type=Warning",
                patience=0.0,
            )
        except (ApiException, ConfigError, TrainingError):
            return ""
        # A repeated training gets the same job name, so events of an earlier job must not count.
        name, made = job["metadata"]["name"], datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        ours = [
            event
            for event in listed.items
            if (event.involved_object.name == name or event.involved_object.name.startswith(f"{name}-node-"))
            and _last_seen(event) >= made
        ]
        newest = max(ours, key=_last_seen, default=None)
        return f"{newest.reason}: {newest.message}" if newest else ""

    def queue_says(self, job: dict[str, Any]) -> str:
        """Return Kueue's reason for not admitting a TrainJob yet, from the condition of the job's Workload.

        Empty if Kueue has not judged it, is not there, or if this account may not read Workloads.
        """
        try:
            found = self._call(
                "list Workloads",
                self._objects.list_namespaced_custom_object,
                *WORKLOADS,
                self.namespace,
                "workloads",
                label_selector=f"{WORKLOAD_LABEL}={job['metadata']['uid']}",
                patience=0.0,
            )
        except (ApiException, ConfigError, TrainingError):
            return ""
        conditions = [each for item in found["items"] for each in item.get("status", {}).get("conditions", ())]
        refused = [each for each in conditions if each["type"] == "QuotaReserved" and each["status"] == "False"]
        return str(refused[-1]["message"]) if refused else ""

    def tail(self, pod: str, lines: int) -> list[str]:
        """Return the last lines of a pod's log; empty if the pod is gone or its node does not answer."""

        def read(*arguments: Any, **options: Any) -> bytes:
            # The client must not decode the log: it would parse a log that happens to be JSON.
            answer = self._core.read_namespaced_pod_log(*arguments, _preload_content=False, **options)
            return bytes(answer.data)

        try:
            text = self._call("read a log", read, pod, self.namespace, tail_lines=lines, patience=TAIL_SECONDS)
        except (ApiException, TrainingError):
            return []
        return text.decode(errors="replace").splitlines()

    def follow(self, pod: str, *, since_seconds: int | None, tail_lines: int | None) -> Iterator[str]:
        """Yield lines `<time> <text>` of a pod's log as they arrive, until the log ends or the connection breaks.

        Raises:
            ApiException, urllib3.exceptions.HTTPError: the connection broke; call it again.
        """
        options = {"since_seconds": since_seconds, "tail_lines": tail_lines}
        response = self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            follow=True,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(REQUEST_SECONDS[0], LOG_SECONDS),
            **{name: value for name, value in options.items() if value is not None},
        )
        rest = b""
        try:
            for chunk in response.stream(1 << 16, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
        finally:
            response.close()
            response.release_conn()

    def _address(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL

    def _call(
        self, what: str, request: Callable[..., T], *arguments: Any, patience: float | None = None, **options: Any
    ) -> T:
        """Repeat a request until the server answers, for at most `patience` seconds or the patience of the cluster."""
        patience = min((given for given in (patience, self._patience) if given is not None), default=None)
        pause, began, said = PAUSE_SECONDS, time.monotonic(), False
        refused_since = 0.0
        refusal: ApiException | None = None  # the latest answer, if it is a refusal
        while True:
            try:
                answer = request(*arguments, _request_timeout=REQUEST_SECONDS, **options)
            except ApiException as error:
                refused = error.status == 401 or (error.status == 403 and ADMISSION not in reason_of(error))
                if refused and not refusal:
                    refused_since = time.monotonic()
                refusal = error if refused else None
                if refused and time.monotonic() - refused_since > self._refusals_seconds():
                    raise self._forbidden(what, error) from None
                if not refused and error.status != 429 and error.status < 500:
                    raise
                problem = reason_of(error)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                refusal = None  # a server that is down does not refuse
                problem = type(error).__name__
            else:
                self._known = True
                if said:
                    logger.info("The API server answers again")
                return answer
            if patience is not None and time.monotonic() - began >= patience:
                if refusal:
                    raise self._forbidden(what, refusal)
                raise TrainingError(
                    f"The API server does not answer ({problem}).", remedy="Check KUBECONFIG and the network."
                )
            if not said:
                said = True
                what_happens = "refuses" if refusal else "does not answer"
                logger.warning("The API server %s (%s). This step waits, and a job continues.", what_happens, problem)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _refusals_seconds(self) -> float:
        return KNOWN_REFUSED_SECONDS if self._known else REFUSED_SECONDS

    def _forbidden(self, what: str, error: ApiException) -> ConfigError:
        return ConfigError(
            f"The cluster does not let this account {what} in namespace {self.namespace}: {reason_of(error)}",
            remedy="On KFP's page: write mantis-steps under Service Account, and start the run again. An operator can "
            "bind the account to the Role mantis-launcher (manifests/base/access.yaml). For KFP, manifests/steps/kfp "
            "does it.",
        )


def connect() -> client.ApiClient:
    """Connect to the API server with the pod's service account, else with KUBECONFIG, without retries.

    Raises:
        ConfigError: neither is configured.
    """
    settings = client.Configuration()
    settings.retries = 0  # the caller waits, and reports it
    try:
        if SERVICE_ACCOUNT.exists() and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
    except config.ConfigException as error:
        raise ConfigError(
            f"training.launcher = 'trainjob', but no cluster is configured: {error}",
            remedy="Set KUBECONFIG, or set training.launcher = local.",
        ) from None
    return client.ApiClient(settings)


def _pod(item: Any) -> Pod:
    labels = item.metadata.labels or {}
    status = next(iter(item.status.container_statuses or ()), None)
    ended = status.state.terminated if status and status.state else None
    return Pod(
        name=item.metadata.name,
        uid=item.metadata.uid,
        node=int(labels.get("batch.kubernetes.io/job-completion-index", 0)),
        attempt=int(labels.get(RESTART_ATTEMPT, 0)),
        created=item.metadata.creation_timestamp.isoformat(),
        phase=item.status.phase,
        waiting=_waiting(item, status),
        ended=ended.finished_at.isoformat() if ended and ended.finished_at else "",
        exit_code=ended.exit_code if ended else None,
        reason=(ended.reason or "") if ended else (item.status.reason or ""),
        message=(ended.message or "") if ended else (item.status.message or ""),
    )


def _last_seen(event: Any) -> datetime:
    seen: datetime = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    return seen


def _waiting(item: Any, status: Any) -> str:
    for condition in item.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return str(condition.message or condition.reason or "not scheduled")
    state = status.state.waiting if status and status.state else None
    return f"{state.reason}: {state.message}" if state and state.message else str(state.reason) if state else ""


def reason_of(error: ApiException) -> str:
    """Return the server's own message."""
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _unexpected(error: ApiException) -> ClusterError:
    return ClusterError(
        f"The cluster answers {reason_of(error)}", remedy="Repeat the command to follow the job, if it still runs."
    )
