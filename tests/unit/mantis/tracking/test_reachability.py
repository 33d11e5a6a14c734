"""MLflow that is away, wrong, or refuses: against servers on this machine, and a real MLflow on SQLite."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mantis.errors import TrackingError
from mantis.runs.step_runner import Run
from mantis.tracking import mlflow_runs, reachability
from mantis.tracking.mlflow_runs import CurveSender, Status, open_tracked_run, record_run, tracking_error
from mantis.tracking.reachability import TrackingAwayError, check_reachable
from mantis.tracking.score_metrics import is_metric_name
from pipelines.execution.finalize import close_run
from tests.helpers.loopback import free_port, running
from tests.helpers.waiting import HANG_SECONDS

Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "TRACKING_USERNAME", "TRACKING_PASSWORD", "TRACKING_TOKEN"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "1" if name.endswith("TIMEOUT") else "0")
    monkeypatch.setattr(reachability, "_away", {})


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make a server that gives one answer to every request; return its URL."""
    with ExitStack() as ends:

        def start(status: int, body: str = "", kind: str = "application/json") -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body.encode())

                do_POST = do_GET  # noqa: N815

                def log_message(self, *_: object) -> None:
                    pass

            server = ends.enter_context(running(ThreadingHTTPServer(("127.0.0.1", 0), Handler), poll_seconds=0.05))
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.fixture
def refused() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def blackhole() -> Iterator[str]:
    """An address whose packets get no answer: the queue of its listener is full."""
    with socket.socket() as listener, ExitStack() as callers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def problem_of(uri: str) -> str:
    with pytest.raises(TrackingAwayError) as caught:
        check_reachable(uri)
    assert reachability.SENT_LATER in caught.value.remedy
    return str(caught.value)


def test_each_kind_of_absence_has_its_own_words(serve: Serve, refused: str) -> None:
    assert "refuses the connection: nothing listens there. Start it" in problem_of(refused)
    assert "no machine has the name 'nobody.invalid'. Correct MLFLOW_TRACKING_URI" in problem_of(
        "http://nobody.invalid:9"
    )
    assert "answers with status 500. Look at the server's log" in problem_of(serve(500))
    assert "answers with status 503" in problem_of(serve(503, "{}"))
    assert "is no MLflow server. Set MLFLOW_TRACKING_URI" in problem_of(serve(404, "<html>", "text/html"))
    assert "is no MLflow server" in problem_of(serve(200, '["a list"]'))
    with pytest.raises(TrackingError, match=r"refuses the login.*MLFLOW_TRACKING_PASSWORD"):
        check_reachable(serve(401, "{}"))


def test_packets_without_an_answer_are_given_up(blackhole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reachability.ANSWER_SECONDS < 5, "an outage is said within five seconds"
    monkeypatch.setattr(reachability, "ANSWER_SECONDS", 0.5)
    assert "did not answer within" in problem_of(blackhole)


def test_mlflow_is_reachable_whatever_it_says_of_the_experiment(serve: Serve) -> None:
    check_reachable(serve(404, '{"error_code": "RESOURCE_DOES_NOT_EXIST"}'))
    check_reachable(serve(403, '{"error_code": "PERMISSION_DENIED"}'))
    check_reachable(serve(200, '{"experiment": {}}'))
    check_reachable("sqlite:////tmp/mlflow.db")


def test_an_outage_is_not_asked_about_again_at_once(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = problem_of(refused)
    monkeypatch.setattr(reachability, "_ask", lambda uri: pytest.fail("it asks again"))
    assert problem_of(refused) == first
    monkeypatch.setattr(reachability, "AGAIN_SECONDS", -1.0)
    monkeypatch.setattr(reachability, "_ask", lambda uri: None)
    check_reachable(refused)


def test_a_curve_without_mlflow_is_said_once_and_goes_with_the_next_attempt(
    run: Run,
    refused: str,
    blackhole: str,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(reachability, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(mlflow_runs, "SECONDS_BETWEEN_BATCHES", 0.1)
    for uri in (refused, blackhole, serve(500)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        caplog.clear()
        sender = CurveSender(run)
        for step in (1, 2, 3):
            sender.add({"step": step, "train/loss": 1.0 / step})
        sender.close(quiet_seconds=60)
        (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert uri in said
        assert reachability.SENT_LATER in said

    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the next attempt: it is back
    again = CurveSender(run)
    for step in (1, 2, 3, 4):
        again.add({"step": step, "train/loss": 1.0 / step})
    again.close(seconds=300)
    tracked = open_tracked_run(run)
    assert [point.step for point in tracked.client.get_metric_history(tracked.id, "train/loss")] == [1, 2, 3, 4]


def test_the_end_of_training_does_not_wait_for_a_server_that_is_silent(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr(mlflow_runs, "open_tracked_run", lambda run: released.wait(HANG_SECONDS))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sender = CurveSender(run)
    sender.add({"step": 1, "train/loss": 1.0})
    sender.close(quiet_seconds=0.3)
    released.set()
    sender._thread.join(HANG_SECONDS)
    assert "The run's last step sends the rest" in caplog.text
    assert mlflow_runs.QUIET_SECONDS + reachability.ANSWER_SECONDS < 10, "the command ends within ten seconds"


def test_a_run_without_mlflow_is_closed(
    run: Run, refused: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", refused)
    close_run(run, Status.FINISHED)
    assert run.store.stat(run.key("summary.json"))
    assert "nothing listens there" in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    close_run(run, Status.FINISHED)
    tracked = mlflow_runs.find_tracked_run(run)
    assert tracked is not None
    assert tracked.client.get_run(tracked.id).info.status == "FINISHED"


def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    tracked = open_tracked_run(run)
    tracked.client.delete_experiment(tracked.experiment)
    with pytest.raises(
        TrackingError, match=r"tracking\.experiment = 'mantis': this experiment of MLflow was deleted"
    ) as caught:
        open_tracked_run(run)
    assert f"mlflow experiments restore --experiment-id {tracked.experiment}" in caught.value.remedy
    close_run(run, Status.FINISHED)
    assert "was deleted" in caplog.text
    tracked.client.restore_experiment(tracked.experiment)
    close_run(run, Status.FINISHED)
    assert tracked.client.get_run(tracked.id).info.status == "FINISHED"


def test_a_refused_metric_name_is_named_and_the_others_are_sent(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracked = open_tracked_run(run)
    scores = {"eval/a?b": 1.0, "eval//x": 1.0, "y" * 251: 1.0, "eval/ok": 2.0}
    record_run(tracked, scores=scores, tags={}, dataset=None, files=[])
    assert tracked.client.get_run(tracked.id).data.metrics == {"eval/ok": 2.0}
    refused = [record.getMessage() for record in caplog.records if "refuses the metric name" in record.getMessage()]
    assert len(refused) == 3
    assert "'eval/a?b'" in "".join(refused)
    assert all("Rename it where it is made" in text for text in refused)


def test_our_rule_for_names_is_mlflows(run: Run) -> None:
    from mlflow.exceptions import MlflowException

    tracked = open_tracked_run(replace(run, id="names"))
    for name in (
        "a",
        "a/b",
        "a b",
        "a:b",
        "a-b_c.d",
        "ä",
        "a?",
        "a//b",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "a/.b",
        "x" * 250,
        "x" * 251,
        ".",
    ):
        refusal = None
        try:
            tracked.client.log_metric(tracked.id, name, 1.0)
        except MlflowException as error:
            refusal = tracking_error(error, run.store)
        assert is_metric_name(name) == (refusal is None), name
        assert refusal is None or "Rename it" in refusal.remedy
