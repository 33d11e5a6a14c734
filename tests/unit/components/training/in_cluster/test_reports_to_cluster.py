"""What the first rank tells its cluster, to servers on loopback with a certificate of their own authority."""

import json
import logging
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.training.callbacks.callback import FinishedStep
from components.training.callbacks.callback_list import CallbackList
from components.training.callbacks.metric_rows import MetricRows
from components.training.callbacks.progress_bar import ProgressBar
from components.training.in_cluster import job_status, object_sender
from components.training.in_cluster.job_events import TRAINJOB, JobEvents, opened_events
from components.training.in_cluster.job_status import JobStatus, opened_status
from components.training.in_cluster.object_sender import MOST_WAITING, ObjectSender, Receiver
from components.training.launch.trainjob_spec import GROUP, VERSION
from tests.helpers.certificates import certified
from tests.helpers.loopback import free_port, running
from tests.helpers.step_figures import FIGURES
from tests.helpers.waiting import HANG_SECONDS

STATUS_PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/mantis/trainjobs/train-demo/status"
ROW = {"step": 4.0, "loss": 1.5, "learning_rate": 5e-6, "samples_per_second": 2.064, "tokens_per_second": 1234.5}


@dataclass
class Taken:
    """A server that takes every POST, and what it took: path, bearer token, object."""

    folder: Path
    port: int = 0
    answer: tuple[int, dict[str, str]] = (200, {})
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    blocks: threading.Event = field(default_factory=threading.Event)

    @property
    def token(self) -> Path:
        return self.folder / "token"

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [each for _, _, each in self.requests]


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Taken]:
    """The server over TLS; its folder has `ca.crt`, `token` and `namespace`, as Kubernetes mounts them."""
    state = Taken(folder=tmp_path)
    state.blocks.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.blocks.wait(HANG_SECONDS)
            state.requests.append((self.path, self.headers["Authorization"], json.loads(body)))
            data = json.dumps(state.answer[1]).encode()
            self.send_response(state.answer[0])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    authority = certified(tmp_path)
    authority.rename(tmp_path / "ca.crt")
    state.token.write_text("first\n")
    (tmp_path / "namespace").write_text("mantis")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "public.crt", tmp_path / "private.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with running(server, poll_seconds=0.02):
        state.port = server.server_port
        yield state
        state.blocks.set()


def loop(step: int = 0, steps: int = 20) -> Any:
    """Stands for the trainer."""
    return SimpleNamespace(state=SimpleNamespace(step=step), steps=steps, announce=lambda *_: None)


def rows(*given: dict[str, float]) -> MetricRows:
    return MetricRows(every=5, steps=20, peak_flops=None, device=torch.device("cpu"), rows=list(given))


@pytest.fixture
def status(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> JobStatus:
    """The callback, as a pod of a TrainJob opens it."""
    monkeypatch.setenv(job_status.SERVER_URL, f"https://127.0.0.1:{taken.port}{STATUS_PATH}")
    monkeypatch.setenv(job_status.SERVER_AUTHORITY, str(taken.folder / "ca.crt"))
    monkeypatch.setenv(job_status.SERVER_TOKEN, str(taken.token))
    monkeypatch.setattr(job_status, "STATUS_SECONDS", 0.0)
    figures = rows(ROW | {"held_out_loss": 1.75}, ROW)
    bar = ProgressBar(figures)
    bar.on_start(loop())
    found = opened_status(figures, bar)
    assert found is not None
    return found


def taken_after(sender: ObjectSender, taken: Taken) -> list[dict[str, Any]]:
    sender.flush()
    return taken.objects


def check_form(request: dict[str, Any]) -> None:
    """The limits that Trainer's CRD sets (trainjob_types.go, v2.3.0)."""
    assert request.keys() == {"trainerStatus"}
    given = request["trainerStatus"]
    assert given.keys() <= {"progressPercentage", "estimatedRemainingSeconds", "metrics", "lastUpdatedTime"}
    assert isinstance(given["progressPercentage"], int)
    assert 0 <= given["progressPercentage"] <= 100
    left = given.get("estimatedRemainingSeconds", 0)
    assert isinstance(left, int)
    assert 0 <= left < 2**31
    assert len(given["metrics"]) <= 256
    for metric in given["metrics"]:
        assert metric.keys() == {"name", "value"}
        assert all(isinstance(text, str) and 1 <= len(text) <= 64 for text in metric.values())
    assert datetime.strptime(given["lastUpdatedTime"], "%Y-%m-%dT%H:%M:%S%z").tzinfo is not None


def test_the_status_has_progress_time_left_and_figures(status: JobStatus, taken: Taken) -> None:
    status.on_start(loop())
    status._bar.after_step(FinishedStep(step=1, figures=FIGURES, row=None))
    status.after_step(FinishedStep(step=9, figures=FIGURES, row=None))
    status.on_end(loop(20))
    found = taken_after(status._sender, taken)
    assert {path for path, _, _ in taken.requests} == {STATUS_PATH}
    for request in found:
        check_form(request)
    given = [request["trainerStatus"] for request in found]
    assert [each["progressPercentage"] for each in given] == [0, 45, 100]
    assert "estimatedRemainingSeconds" not in given[0], "no step is done yet"
    assert [each["estimatedRemainingSeconds"] > 0 for each in given[1:]] == [True, False]
    assert {metric["name"]: metric["value"] for metric in given[1]["metrics"]} == {
        "step": "9", "loss": "1.5", "learning_rate": "5e-06", "samples_per_second": "2.064",
        "tokens_per_second": "1234.5", "held_out_loss": "1.75",
    }  # fmt: skip


def test_early_stopping_ends_at_a_hundred_percent(status: JobStatus, taken: Taken) -> None:
    status.on_start(loop())
    status.on_end(loop(12))
    assert taken_after(status._sender, taken)[-1]["trainerStatus"]["progressPercentage"] == 100


def test_figures_of_any_size_keep_to_the_form() -> None:
    figures = {"loss": float("nan"), "a": 1e300, "b": -1.23456789e-300, "c": float("inf")}
    check_form(job_status.trainer_status(0, 1e300, figures))
    check_form(job_status.trainer_status(100, None, {}))


def test_between_two_reports_lie_seconds(status: JobStatus, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_status, "STATUS_SECONDS", 3600.0)
    status.on_start(loop())
    for step in range(1, 6):
        status.after_step(FinishedStep(step=step, figures=FIGURES, row=None))
    assert len(taken_after(status._sender, taken)) == 1


@pytest.mark.parametrize("missing", [job_status.SERVER_URL, job_status.SERVER_TOKEN, job_status.SERVER_AUTHORITY])
def test_without_the_variables_nothing_is_reported(
    status: JobStatus, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    assert opened_status(rows(), ProgressBar(rows())) is None


@pytest.fixture
def events(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> JobEvents:
    """The callback, as a pod with the component job-reports opens it."""
    monkeypatch.setenv("MANTIS_TRAINJOB", "train-demo")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(taken.port))
    found = opened_events(taken.folder)
    assert found is not None
    return found


def test_events_name_the_job_and_tell_of_start_checkpoints_and_signals(events: JobEvents, taken: Taken) -> None:
    callbacks = CallbackList(rows(), [events])
    callbacks.on_start(loop())
    callbacks.on_commit(5)
    callbacks.on_stop(5)
    callbacks.on_start(loop(5))
    callbacks.on_end(loop(20))
    assert {path for path, _, _ in taken.requests} == {"/api/v1/namespaces/mantis/events"}
    assert [(each["reason"], each["message"]) for each in taken.objects] == [
        ("TrainingStarted", "Training begins: 20 steps."),
        ("CheckpointSaved", "The checkpoint of step 5 of 20 is committed."),
        ("TrainingStopped", "A signal ended the training. Step 5 of 20 is saved."),
        ("TrainingResumed", "Training continues after step 5 of 20."),
    ]
    job = {**TRAINJOB, "namespace": "mantis", "name": "train-demo"}
    assert all(each["involvedObject"] == job for each in taken.objects)
    assert TRAINJOB["apiVersion"] == f"{GROUP}/{VERSION}"
    # The launcher takes a Warning about a job as the reason of missing pods.
    assert {each["type"] for each in taken.objects} == {"Normal"}
    assert len({each["metadata"]["name"] for each in taken.objects}) == 4
    assert {each["metadata"]["namespace"] for each in taken.objects} == {"mantis"}


@pytest.mark.parametrize("missing", ["MANTIS_TRAINJOB", "KUBERNETES_SERVICE_HOST"])
def test_without_a_name_or_a_server_there_are_no_events(
    events: JobEvents, taken: Taken, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    assert opened_events(taken.folder) is None


def test_without_a_token_there_are_no_events(events: JobEvents, tmp_path: Path) -> None:
    assert opened_events(tmp_path / "nothing") is None


def test_a_token_that_was_replaced_is_read_again(events: JobEvents, taken: Taken) -> None:
    events.on_commit(1)
    taken_after(events._sender, taken)
    taken.token.write_text("second")
    events.on_commit(2)
    taken_after(events._sender, taken)
    assert [token for _, token, _ in taken.requests] == ["Bearer first", "Bearer second"]


def test_a_refusal_is_said_once(events: JobEvents, taken: Taken, caplog: pytest.LogCaptureFixture) -> None:
    taken.answer = (403, {"message": "events is forbidden"})
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            events.on_commit(step)
            done = threading.Event()
            events._sender._waiting.put(done)
            assert done.wait(HANG_SECONDS)
        taken.answer = (200, {})
        events.on_commit(3)
        taken.answer = (403, {"message": "events is forbidden"})
    assert [record.getMessage() for record in caplog.records] == [
        "The API server does not take the reports of this training: status 403: events is forbidden"
    ]


def test_a_server_of_another_authority_gets_no_token(
    events: JobEvents, taken: Taken, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certified(other).replace(taken.folder / "ca.crt")
    events.on_commit(1)
    done = threading.Event()
    events._sender._waiting.put(done)
    assert done.wait(HANG_SECONDS)
    assert taken.requests == []
    assert "certificate verify failed" in caplog.text


def test_a_server_that_is_away_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No call waits for it, and what it does not take is dropped."""
    (tmp_path / "token").write_text("any")
    sender = ObjectSender(
        Receiver(
            name="A server", url=f"http://127.0.0.1:{free_port()}/", token=tmp_path / "token", authority=tmp_path / "no"
        )
    )
    for number in range(10 * MOST_WAITING):
        sender.send({"number": number})
    done = threading.Event()
    sender._waiting.put(done, timeout=HANG_SECONDS)
    assert done.wait(HANG_SECONDS)
    sender.flush()
    assert caplog.text.count("A server does not take the reports") == 1


def test_a_server_that_hangs_holds_up_no_training(
    events: JobEvents, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_sender, "FLUSH_SECONDS", 0.05)
    taken.blocks.clear()
    for step in range(2 * MOST_WAITING):
        events.on_commit(step)
    events.on_stop(7)  # returns, although nothing was sent
    assert taken.requests == []
