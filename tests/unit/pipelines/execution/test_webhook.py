"""The message about the end of a run, and a server on loopback that takes it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mantis.config.recipe import parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking.mlflow_runs import Status
from mantis.tracking.webhook import ADDRESS, message_of, send_webhook
from pipelines.execution.finalize import record_end
from tests.helpers.loopback import running

PATH = "/services/a-secret-path"


class Chat(ThreadingHTTPServer):
    """A chat's webhook: keeps what it gets, and answers with `status`."""

    def __init__(self) -> None:
        self.status, self.got = 200, list[dict[str, Any]]()
        super().__init__(("127.0.0.1", 0), Webhook)


class Webhook(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append({"path": self.path, "type": self.headers["Content-Type"], **json.loads(body)})
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    with running(Chat(), poll_seconds=0.05) as server:
        monkeypatch.setenv(ADDRESS, f"http://127.0.0.1:{server.server_address[1]}{PATH}")
        yield server


@pytest.fixture
def ended(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("pipelines.execution.finalize._record_in_mlflow", lambda *_: None)
    return Run(id="demo-1", store=local_store, recipe=parse_recipe("name: demo", origin="test"))


def test_the_message_has_the_reason_or_the_verdict(ended: Run) -> None:
    failed = message_of(ended, "FAILED", failed={"train": "The loss is not finite.\n"}, verdict="", link="")
    assert failed == "Run demo-1 of recipe demo: FAILED\ntrain failed: The loss is not finite."
    whole = message_of(ended, "FINISHED", failed={}, verdict="Good.", link="s3://mantis/reports/demo-1/report.html")
    assert whole.splitlines()[1:] == ["Good.", "s3://mantis/reports/demo-1/report.html"]


def test_the_end_of_a_run_is_posted_as_slack_reads_it(chat: Chat, ended: Run) -> None:
    record_end(ended, Status.KILLED)
    (got,) = chat.got
    assert got == {"path": PATH, "type": "application/json", "text": "Run demo-1 of recipe demo: KILLED"}


def test_an_arm_posts_nothing(chat: Chat, ended: Run) -> None:
    record_end(Run(id="demo-1-a", store=ended.store, recipe=ended.recipe, parent="demo-1"), Status.FINISHED)
    assert chat.got == []


def test_no_address_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    assert send_webhook("any") is False


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_is_logged_without_the_address(chat: Chat, status: int, caplog: pytest.LogCaptureFixture) -> None:
    chat.status = status
    assert send_webhook("any") is False
    assert f"status {status}" in caplog.text
    assert "a-secret-path" not in caplog.text


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a-secret-path", "file:///etc/a-secret-path"])
def test_a_server_that_is_away_does_not_stop_the_end(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ADDRESS, address)
    assert send_webhook("any") is False
    assert ADDRESS in caplog.text
    assert "a-secret-path" not in caplog.text
