"""Sends the load of each node (processors, memory, disks, network, GPUs) to MLflow as `system/<node>/...`."""

import importlib
import logging
import os
import threading

from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import Status, TrackedRun, find_tracked_run, tracking_uri

logger = logging.getLogger(__name__)

SAMPLING_SECONDS = 10
AGAIN_SECONDS = 30.0  # pause after MLflow was away
OPEN_SECONDS = 3.0  # pause between attempts to find the run
CLOSE_SECONDS = 3.0


class SystemMetrics:
    """Runs MLflow's own monitor in a thread and restarts it after an outage. Training never waits for it.

    It runs only if MLFLOW_TRACKING_URI names a server: several processes cannot share a file of SQLite.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        if os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http"):
            # Two threads that import mlflow for the first time at once see it half imported.
            importlib.import_module("mlflow")
            self._thread.start()

    def close(self) -> None:
        """Stop; waits up to 3 s for the last figures."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # outages are logged below
        tracked: TrackedRun | None = None
        while not self._closed.is_set():
            try:
                tracked = tracked or find_tracked_run(self._run)  # the first rank creates it for its curve
                if tracked is None:
                    self._closed.wait(OPEN_SECONDS)
                    continue
                self._watch(tracked.id)
                if tracked.client.get_run(tracked.id).info.status != Status.RUNNING:
                    return  # another program has closed the run
            except Exception as error:  # no error of the client may cost a training step
                logger.warning("MLflow takes no system metrics: %s", str(error).splitlines()[0][:200])
            self._closed.wait(AGAIN_SECONDS)

    def _watch(self, run_id: str) -> None:
        """Sample until this monitor is closed, the run is closed, or MLflow is away."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(
            run_id,
            sampling_interval=SAMPLING_SECONDS,
            resume_logging=True,
            node_id=f"node-{os.environ.get('GROUP_RANK', '0')}",  # set by torchrun; the same for every job
            tracking_uri=tracking_uri(self._run.store),
        )
        watching = threading.Thread(target=monitor.monitor, name="system-metrics-sampling", daemon=True)
        watching.start()
        while watching.is_alive() and not self._closed.wait(1.0):
            pass
        if self._closed.is_set():
            monitor.mlflow_logger.flush()
