"""The progress of a training in `status.trainerStatus` of its TrainJob, which `kubectl get trainjob -o yaml` shows.

Trainer 2.3 takes it over HTTPS if its feature gate TrainJobStatus is on. The controller then gives each pod three
variables (pkg/runtime/framework/plugins/trainjobstatus of kubeflow/trainer), and mounts the files that they name.
"""

import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.training.callbacks.callback import Callback, FinishedStep, TrainerView
from components.training.callbacks.metric_rows import MetricRows
from components.training.callbacks.progress_bar import ProgressBar, last_held_out
from components.training.in_cluster.object_sender import ObjectSender, Receiver

SERVER_URL = "KUBEFLOW_TRAINER_SERVER_URL"
SERVER_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # names a file
SERVER_AUTHORITY = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
STATUS_SECONDS = 10.0  # between two reports; Trainer's documentation asks for 5 or more
MOST_SECONDS = 2**31 - 1  # of the field's type, int32
SHOWN = ("loss", "learning_rate", "samples_per_second", "tokens_per_second")  # figures of a metrics row


class JobStatus(Callback):
    """Reports progress, remaining seconds and the figures of the last metrics row; on the first rank."""

    name = "job_status"

    def __init__(self, sender: ObjectSender, rows: MetricRows, bar: ProgressBar) -> None:
        self._sender, self._rows, self._bar = sender, rows, bar
        self._steps = 0
        self._next = 0.0

    def on_start(self, trainer: TrainerView) -> None:
        """Report the step that a resumed training begins with."""
        self._steps = trainer.steps
        self._send(trainer.state.step, self._bar.seconds_left)

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Report the step, if it is time."""
        if time.monotonic() >= self._next:
            self._send(finished.step, self._bar.seconds_left)
        return {}

    def on_end(self, trainer: TrainerView) -> None:
        """Report the end, and wait a moment for the server: the pod ends soon."""
        self._send(trainer.state.step, 0.0, ended=True)
        self._sender.flush()

    def _send(self, step: int, seconds_left: float | None, *, ended: bool = False) -> None:
        self._next = time.monotonic() + STATUS_SECONDS
        row = dict(self._rows.rows[-1]) if self._rows.rows else {}
        figures = {"step": float(step), **{name: row[name] for name in SHOWN if name in row}}
        held_out = last_held_out(self._rows)
        if held_out is not None:
            figures["held_out_loss"] = held_out
        percent = 100 if ended else 100 * step // self._steps  # early stopping ends before the last step
        self._sender.send(trainer_status(percent, seconds_left, figures))


def trainer_status(percent: int, seconds_left: float | None, figures: Mapping[str, float]) -> dict[str, Any]:
    """The request as Trainer reads it: UpdateTrainJobStatusRequest of trainer.kubeflow.org/v1alpha1.

    Args:
        percent: share of the training that is done, 0 to 100.
        seconds_left: None if it is not known.
        figures: shown as text of 6 digits.
    """
    status: dict[str, Any] = {
        "progressPercentage": percent,
        "metrics": [{"name": name, "value": f"{value:.6g}"} for name, value in figures.items()],
        "lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if seconds_left is not None:
        status["estimatedRemainingSeconds"] = min(math.ceil(seconds_left), MOST_SECONDS)
    return {"trainerStatus": status}


def opened_status(rows: MetricRows, bar: ProgressBar) -> JobStatus | None:
    """The callback for the server that Trainer names to this pod; None if it names none."""
    url, token, authority = (os.environ.get(name, "") for name in (SERVER_URL, SERVER_TOKEN, SERVER_AUTHORITY))
    if not (url and token and authority):
        return None
    receiver = Receiver(name="The status server of Trainer", url=url, token=Path(token), authority=Path(authority))
    return JobStatus(ObjectSender(receiver), rows, bar)
