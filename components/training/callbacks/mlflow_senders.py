"""What MLflow and Prometheus show of a training while it runs."""

from collections.abc import Mapping

from components.training.callbacks.callback import Callback, FinishedStep, TrainerView
from components.training.callbacks.goodput_timer import GoodputTimer
from components.training.callbacks.metric_rows import MetricRows
from components.training.monitoring.goodput import Cause
from components.training.monitoring.step_metrics import Row
from components.training.monitoring.system_metrics import SystemMetrics
from components.training.monitoring.training_metrics import TrainingMetrics
from mantis.artifacts.manifest import Manifest
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import CurveSender, curve_row


class MlflowCurve(Callback):
    """Sends every metrics row to MLflow as `train/<figure>` from a thread; on the first rank."""

    name = "mlflow_curve"

    def __init__(self, run: Run, rows: MetricRows, mixture: Manifest) -> None:
        self._run, self._rows, self._mixture = run, rows, mixture
        self._sender: CurveSender | None = None

    def on_start(self, trainer: TrainerView) -> None:
        """Send the rows of earlier attempts: a killed one may not have sent them. MLflow gets no row twice."""
        self._sender = CurveSender(self._run, self._mixture)
        for row in self._rows.rows:
            self.on_row(row)

    def on_row(self, row: Row) -> None:
        """Queue the row."""
        if self._sender:
            self._sender.add(curve_row(row))

    def on_end(self, trainer: TrainerView) -> None:
        """Send the queued rows; waits for a minute at most."""
        if self._sender:
            self._sender.close()


class NodeMetrics(Callback):
    """Sends the node's load to MLflow as `system/<node>/...` from a thread; on one rank of each node."""

    name = "node_metrics"

    def __init__(self, run: Run) -> None:
        self._run = run
        self._metrics: SystemMetrics | None = None

    def on_start(self, trainer: TrainerView) -> None:
        """Begin sampling."""
        self._metrics = SystemMetrics(self._run)

    def on_end(self, trainer: TrainerView) -> None:
        """Send the last figures."""
        if self._metrics:
            self._metrics.close()


class PrometheusFigures(Callback):
    """Keeps the figures that Prometheus reads; on the first rank, if a port is named."""

    name = "prometheus"

    def __init__(
        self, metrics: TrainingMetrics, rows: MetricRows, goodput: GoodputTimer, *, checkpoint_every: int
    ) -> None:
        self._metrics, self._rows, self._goodput = metrics, rows, goodput
        self._every = checkpoint_every

    def on_start(self, trainer: TrainerView) -> None:
        """Show how far the checkpoint was."""
        self._metrics.resumed(step=trainer.state.step, steps=trainer.steps, checkpoint_every=self._every)
        for row in self._rows.rows:
            self._metrics.logged(row)

    def on_phase(self, phase: Cause, step: int, detail: str) -> None:
        """Show that the trainer moves: an evaluation takes as long as many steps."""
        self._metrics.moved()

    def after_step(self, finished: FinishedStep) -> Mapping[str, float]:
        """Count the step, and show the time by cause."""
        self._metrics.trained(finished.step, finished.figures)
        self._metrics.spent(self._goodput.clock.seconds())
        return {}

    def on_row(self, row: Row) -> None:
        """Show the row."""
        self._metrics.logged(row)

    def on_commit(self, step: int) -> None:
        """Show the checkpoint."""
        self._metrics.committed(step)
