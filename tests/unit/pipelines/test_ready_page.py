"""`mantis ui` prints the address of the page once a browser can open it."""

import http.server
import subprocess
import sys
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from pipelines.cli import runs_page
from tests.helpers.loopback import free_port, running
from tests.helpers.waiting import HANG_SECONDS


@pytest.fixture
def server() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that stands for MLflow's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("open_page", [False, True])
def test_the_address_is_printed_when_it_can_be_opened(
    server: "subprocess.Popen[bytes]", open_page: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, refused = free_port(), threading.Event()
    page = f"http://127.0.0.1:{port}/#/experiments/1/runs"
    printed: list[str] = []
    opened: list[str] = []

    def show(text: str) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=4).close()
        printed.append(text)

    monkeypatch.setattr(runs_page, "show", show)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(runs_page, "time", SimpleNamespace(sleep=lambda _seconds: refused.set()))
    waits = threading.Thread(target=runs_page.show_when_ready, args=(page, server, open_page), daemon=True)
    waits.start()
    assert refused.wait(HANG_SECONDS)
    assert printed == []
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", port), Healthy)):
        waits.join(HANG_SECONDS)
        assert printed == [page]
    assert opened == ([page] if open_page else [])


def test_no_address_of_a_server_that_ended_is_printed(
    server: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    monkeypatch.setattr(runs_page, "show", printed.append)
    server.kill()
    server.wait()
    runs_page.show_when_ready(f"http://127.0.0.1:{free_port()}/#/experiments", server, False)
    assert printed == []
