"""A whole run while MLflow is away, then a wrong address, then a deleted experiment, then MLflow as it should be."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mantis.runs.step_runner import open_run
from mantis.tracking.mlflow_runs import Status, tracking_uri
from mantis.tracking.reachability import ANSWER_SECONDS, SENT_LATER
from mantis.tracking.score_metrics import SCORE
from pipelines.execution.finalize import close_run
from tests.fixtures.cli import Mantis
from tests.helpers.loopback import running

TINY = (
    "--name=tiny",
    "--set=data.generated_conversations=60",
    "--set=data.skills=[single]",
    "--set=evaluation.samples_per_skill=2",
    "--set=training.max_steps=2",
    "--set=training.log_every=1",
)


class Away(ThreadingHTTPServer):
    """Answers every request with `status`, and notes whether the report was written before it."""

    def __init__(self, store: Path, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.store, self.status = store, status
        self.after_work: list[bool] = []
        self.one = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Away

    def do_GET(self) -> None:
        with self.server.one:
            self.server.after_work.append(any(self.server.store.glob("reports/tiny/report.html")))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


def test_no_trouble_with_mlflow_costs_the_run_anything(
    without_mlflow: None,
    mantis: Mantis,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(Away(store, 503), poll_seconds=0.05) as away:
        done = mantis("run", "demo", *TINY, "--store", store.as_uri(), cwd=store.parent, MLFLOW_TRACKING_URI=away.url)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert f"MLflow at {away.url} answers with status 503." in said
        assert SENT_LATER in " ".join(said.split())
        assert "Traceback" not in said
        assert (store / "reports/tiny/report.html").stat().st_size > 10_000
        assert 0 < sum(away.after_work) * ANSWER_SECONDS < 10, "a silent server delays the end by less than ten seconds"

    run = open_run("tiny", store.as_uri())
    with running(Away(store, 200), poll_seconds=0.05) as wrong:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong.url)
        close_run(run, Status.FINISHED)
        assert f"MLflow at {wrong.url} is no MLflow server" in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    client = MlflowClient(tracking_uri=tracking_uri(run.store))
    experiment = client.create_experiment(run.recipe.tracking.experiment)
    client.delete_experiment(experiment)
    again = mantis("run", "demo", *TINY, "--store", store.as_uri(), cwd=store.parent)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"mlflow experiments restore --experiment-id {experiment}" in again.stdout + again.stderr

    client.restore_experiment(experiment)
    close_run(run, Status.FINISHED)
    (tracked,) = client.search_runs([experiment])
    assert tracked.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(tracked.info.run_id, "train/loss")] == [1, 2]
    assert any(name.startswith(SCORE) for name in tracked.data.metrics)
