"""System metrics at a real MLflow server; none of it may disturb a training."""

import os
from typing import Any

import pytest

from components.training.monitoring import system_metrics
from components.training.monitoring.system_metrics import SystemMetrics
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import Status, TrackedRun, open_tracked_run
from tests.fixtures.mlflow import MlflowServer
from tests.helpers.waiting import HANG_SECONDS, until


@pytest.fixture
def server(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    mlflow_server.until_ready()


def logged(run: Run) -> tuple[TrackedRun, set[str]]:
    tracked = open_tracked_run(run)
    return tracked, {name for name in tracked.client.get_run(tracked.id).data.metrics if name.startswith("system/")}


def test_a_node_shows_what_it_does(server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "SAMPLING_SECONDS", 0.5)
    monkeypatch.setenv("GROUP_RANK", "3")
    metrics = SystemMetrics(run)
    name = "system/node-3/cpu_utilization_percentage"
    until(name, lambda: name in logged(run)[1], pause=0.5)
    metrics.close()
    assert not metrics._thread.is_alive()


def test_a_run_that_was_closed_stays_closed(server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "SAMPLING_SECONDS", 0.2)
    monkeypatch.setattr(system_metrics, "AGAIN_SECONDS", 0.1)
    tracked, _ = logged(run)
    metrics = SystemMetrics(run)
    until(
        "a figure of the node",
        lambda: any(name.startswith("system/") for name in tracked.client.get_run(tracked.id).data.metrics),
        pause=0.1,
    )
    tracked.client.set_terminated(tracked.id, status=Status.KILLED)
    metrics._thread.join(HANG_SECONDS)
    assert not metrics._thread.is_alive()
    assert tracked.client.get_run(tracked.id).info.status == "KILLED"


def test_a_server_that_is_away_is_said_and_closing_is_quick(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(system_metrics, "AGAIN_SECONDS", 3600.0)
    metrics = SystemMetrics(run)
    until("the warning", lambda: "takes no system metrics" in caplog.text)
    metrics.close()  # does not wait for the next attempt in an hour
    metrics._thread.join(HANG_SECONDS)
    assert not metrics._thread.is_alive()


def test_without_a_server_nothing_is_started(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    metrics = SystemMetrics(run)
    metrics.close()
    assert not metrics._thread.is_alive()
    assert not os.environ.get("MLFLOW_TRACKING_URI")
