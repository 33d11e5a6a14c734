"""What MLflow shows of a training while it runs: its curve, and the load of each node."""

from components.training.callbacks.callback import Callback, TrainerView
from components.training.callbacks.metric_rows import MetricRows
from components.training.monitoring.step_metrics import Row
from components.training.monitoring.system_metrics import SystemMetrics
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import CurveSender, curve_row


class MlflowCurve(Callback):
    """Sends every metrics row to MLflow as `train/<figure>` from a thread; on the first rank."""

    name = "mlflow_curve"

    def __init__(self, run: Run, rows: MetricRows) -> None:
        self._run, self._rows = run, rows
        self._sender: CurveSender | None = None

    def on_start(self, trainer: TrainerView) -> None:
        """Send the rows of earlier attempts: a killed one may not have sent them. MLflow gets no row twice."""
        self._sender = CurveSender(self._run)
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
