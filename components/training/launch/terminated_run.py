"""Notice early that a person terminates the KFP run of this launcher, so that its TrainJob frees the GPUs at once.

KFP terminates a run by a deadline of zero in its Workflow. Argo looks at a Workflow every 10 s. Then it kills the
processes of a step, without time for a request to the API server. The exit task `finish` begins about 40 s later. This
module watches the Workflow, and takes the deadline for a SIGTERM, which arrives before Argo's.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from components.training.launch.kubernetes_client import connect, reason_of
from mantis.errors import ConfigError
from mantis.runs.step_runner import KFP_POD

logger = logging.getLogger(__name__)

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of this pod
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
WORKFLOWS = ("argoproj.io", "v1alpha1")
WATCH_SECONDS = 300  # of one request; then it is repeated
PAUSE_SECONDS = 5.0  # after a request that failed


@contextmanager
def sigterm_when_terminated() -> Iterator[None]:
    """Send SIGTERM to this process when its KFP run is terminated, while the block runs. Outside of KFP, do nothing."""
    pod = os.environ.get(KFP_POD)
    if not pod or not NAMESPACE.exists():
        yield
        return
    over = threading.Event()
    arguments = (NAMESPACE.read_text().strip(), pod, over)
    threading.Thread(target=_watch, args=arguments, name="kfp-run", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(namespace: str, pod: str, over: threading.Event) -> None:
    """Watch the Workflow until `over`. Without the right to do so, log it: then `finish` deletes the TrainJob later."""
    while not over.is_set():
        try:
            if _is_terminated(namespace, pod):
                if not over.is_set():
                    logger.warning("The run was terminated in KFP")
                    os.kill(os.getpid(), signal.SIGTERM)
                return
        except ApiException as error:
            if error.status in (403, 404):
                logger.warning("A termination of the KFP run is noticed late: %s", reason_of(error))
                return
            over.wait(PAUSE_SECONDS)
        except ConfigError as error:
            logger.warning("A termination of the KFP run is noticed late: %s", error.problem)
            return
        except (urllib3.exceptions.HTTPError, OSError):  # the server is down for a while
            over.wait(PAUSE_SECONDS)


def _is_terminated(namespace: str, pod: str) -> bool:
    """Wait for at most WATCH_SECONDS; True as soon as the Workflow of the pod is to end.

    Raises:
        ApiException, urllib3.exceptions.HTTPError, OSError: the server refuses or does not answer.
        ConfigError: no cluster is configured.
    """
    connection = connect()
    labels = client.CoreV1Api(connection).read_namespaced_pod(pod, namespace).metadata.labels or {}
    name = labels.get(WORKFLOW_LABEL)
    if not name:
        raise ConfigError(f"The pod {pod} belongs to no Workflow.", remedy="Start the step by KFP.")
    events = watch.Watch().stream(
        client.CustomObjectsApi(connection).list_namespaced_custom_object,
        *WORKFLOWS,
        namespace,
        "workflows",
        field_selector=f"metadata.name={name}",
        timeout_seconds=WATCH_SECONDS,
    )
    return any(_ends(event["object"]) for event in events)


def _ends(workflow: dict[str, Any]) -> bool:
    spec = workflow.get("spec", {})
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))
