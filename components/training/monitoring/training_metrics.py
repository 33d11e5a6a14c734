"""The figures of a running training, in the form of Prometheus."""

import logging
import math
import os
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from components.training.monitoring.goodput import goodput
from components.training.monitoring.step_metrics import Row, StepFigures
from mantis.errors import ConfigError

logger = logging.getLogger(__name__)

PORT = "MANTIS_METRICS_PORT"  # the variable that names the port; the manifests' monitoring sets it
MOST_PORT = 65535
# The figures of a metrics row that are gauges of their own: their key in the row, their name, their meaning.
OF_ROWS = (
    ("loss", "loss", "Mean loss of the last metrics row, in nats"),
    ("held_out_loss", "held_out_loss", "Loss of the held-out rows, in nats"),
    ("learning_rate", "learning_rate", "Learning rate of the last step of the last metrics row"),
    ("gradient_norm", "gradient_norm", "Norm of the gradient before clipping"),
    ("mfu", "mfu_ratio", "Model FLOPs utilization, 0 to 1"),
    ("data_share", "data_wait_ratio", "Share of the time in which the first rank waited for data, 0 to 1"),
    ("slowdown", "slowdown_ratio", "Time of the slowest rank over the median, for the same matrix product"),
)


class TrainingMetrics:
    """Holds what Prometheus reads of one training; every series bears the label `run`.

    Counters begin at zero in each attempt, so that `rate` sees a restart as what it is. Prometheus reads from a thread
    of its own, so every figure is set by the trainer, and none is computed when Prometheus asks.
    """

    def __init__(self, run: str) -> None:
        self.registry = CollectorRegistry()
        self._run = run
        self._step = self._gauge("step", "Optimizer steps that are done")
        self._steps = self._gauge("steps", "Optimizer steps of the whole training")
        self._samples = self._counter("samples", "Samples trained in this attempt, over all ranks")
        self._tokens = self._counter("tokens", "Tokens trained in this attempt, over all ranks")
        self._skipped = self._counter("skipped_steps", "Bad steps that this attempt skipped")
        self._goodput = self._gauge("goodput_ratio", "Share of the wall time that went into steps, over all attempts")
        self._seconds = self._labelled("cause_seconds", "Wall time by cause, over all attempts", "cause")
        self._started = self._gauge("started_timestamp_seconds", "When this attempt began")
        self._moved = self._gauge("progress_timestamp_seconds", "When the trainer last entered a part of its work")
        self._checkpoint = self._gauge("checkpoint_step", "Step of the last committed checkpoint")
        self._committed = self._gauge(
            "checkpoint_timestamp_seconds", "When the last checkpoint was committed, or this attempt began"
        )
        self._every = self._gauge("checkpoint_every_steps", "Steps between two checkpoints")
        self._checkpoints = self._counter("checkpoints", "Checkpoints that this attempt committed")
        # A figure that is unknown so far has no series.
        self._of_rows = {key: self._labelled(name, words) for key, name, words in OF_ROWS}
        self.began()

    def began(self) -> None:
        """An attempt begins: until its first checkpoint, its work is as old as the attempt."""
        for gauge in (self._started, self._moved, self._committed):
            gauge.set(time.time())

    def resumed(self, *, step: int, steps: int, checkpoint_every: int) -> None:
        """The trainer begins behind step `step` of `steps`, the step of the checkpoint that it loaded (0: none)."""
        self._step.set(step)
        self._checkpoint.set(step)
        self._steps.set(steps)
        self._every.set(checkpoint_every)
        self.moved()

    def moved(self) -> None:
        """The trainer entered another part of its work."""
        self._moved.set(time.time())

    def trained(self, step: int, figures: StepFigures) -> None:
        """Count step `step` (from 1)."""
        self._step.set(step)
        self._samples.inc(figures.samples)
        self._tokens.inc(figures.tokens)
        self._skipped.inc(0 if figures.taken else 1)
        self.moved()

    def logged(self, row: Row) -> None:
        """Show the figures of a metrics row; one that is no number keeps the value before."""
        for key, gauge in self._of_rows.items():
            if math.isfinite(row.get(key, math.nan)):
                gauge.labels(run=self._run).set(row[key])

    def spent(self, seconds: Mapping[str, float]) -> None:
        """Show the wall time, `seconds` by cause."""
        self._goodput.set(goodput(seconds))
        for cause, value in seconds.items():
            self._seconds.labels(run=self._run, cause=cause).set(value)

    def committed(self, step: int) -> None:
        """The checkpoint of step `step` is committed."""
        self._checkpoint.set(step)
        self._committed.set(time.time())
        self._checkpoints.inc()

    def serve(self, port: int) -> None:
        """Answer Prometheus on `port` of every address, from a thread. A port that is taken costs a warning."""
        try:
            start_http_server(port, registry=self.registry)
        except OSError as error:  # the training matters more than its figures
            logger.warning("Prometheus cannot read this training: port %d: %s", port, error.strerror)

    def _labelled(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(name, words, ("run", *labels), namespace="mantis", subsystem="training", registry=self.registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return self._labelled(name, words).labels(run=self._run)

    def _counter(self, name: str, words: str) -> Counter:
        counter = Counter(name, words, ("run",), namespace="mantis", subsystem="training", registry=self.registry)
        return counter.labels(run=self._run)


def opened_metrics(run: str) -> TrainingMetrics | None:
    """The figures of a training of `run` on the port MANTIS_METRICS_PORT; None without it, since nobody reads them.

    Raises:
        ConfigError: the variable is no port.
    """
    port = os.environ.get(PORT, "")
    if not port:
        return None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= MOST_PORT):
        raise ConfigError(f"{PORT}={port} is no port.", remedy=f"Set a number from 1 to {MOST_PORT}, or unset it.")
    metrics = TrainingMetrics(run)
    metrics.serve(int(port))
    return metrics
