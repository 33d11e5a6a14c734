"""Events of a training on its TrainJob: `kubectl events --for trainjob/NAME` shows them.

The component manifests/job-reports gives a rank the name of its job, and a token that may create events. It may do
nothing else.
"""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from components.training.callbacks.callback import Callback, TrainerView
from components.training.in_cluster.object_sender import ObjectSender, Receiver

JOB = "MANTIS_TRAINJOB"  # the variable with the name of this pod's TrainJob
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where clients expect the token, by convention
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"  # set by the kubelet in each container
TRAINJOB = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
REPORTER = "mantis-kfp/training"


class JobEvents(Callback):
    """Creates an event at the start, at each committed checkpoint, and when a signal ends the training."""

    name = "job_events"

    def __init__(self, sender: ObjectSender, *, namespace: str, job: str) -> None:
        self._sender, self._namespace, self._job = sender, namespace, job
        self._steps = 0

    def on_start(self, trainer: TrainerView) -> None:
        """Tell where the training begins."""
        self._steps, done = trainer.steps, trainer.state.step
        if done:
            self._send("TrainingResumed", f"Training continues after step {done} of {self._steps}.")
        else:
            self._send("TrainingStarted", f"Training begins: {self._steps} steps.")

    def on_commit(self, step: int) -> None:
        """Tell of the checkpoint; from the thread that stored it."""
        self._send("CheckpointSaved", f"The checkpoint of step {step} of {self._steps} is committed.")

    def on_stop(self, step: int) -> None:
        """Tell of the signal, and wait a moment for the server: the pod ends soon."""
        self._send("TrainingStopped", f"A signal ended the training. Step {step} of {self._steps} is saved.")
        self._sender.flush()

    def on_end(self, trainer: TrainerView) -> None:
        """Wait a moment for the last event: the pod ends soon."""
        self._sender.flush()

    def _send(self, reason: str, message: str) -> None:
        self._sender.send(event_of(self._namespace, self._job, reason, message))


def event_of(namespace: str, job: str, reason: str, message: str) -> dict[str, Any]:
    """An Event of core/v1 on a TrainJob. It names no uid: an account that may only create events cannot read it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{job}.{uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": {**TRAINJOB, "namespace": namespace, "name": job},
        "type": "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": REPORTER, "host": socket.gethostname()},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def opened_events(account: Path = ACCOUNT) -> JobEvents | None:
    """The callback for the API server of this pod; None if the pod has no name of its job, or no token."""
    job, host, port = (os.environ.get(name, "") for name in (JOB, HOST, PORT))
    if not (job and host and port and (account / "namespace").exists()):
        return None
    namespace = (account / "namespace").read_text().strip()
    place = f"[{host}]" if ":" in host else host
    receiver = Receiver(
        name="The API server",
        url=f"https://{place}:{port}/api/v1/namespaces/{namespace}/events",
        token=account / "token",
        authority=account / "ca.crt",
    )
    return JobEvents(ObjectSender(receiver), namespace=namespace, job=job)
