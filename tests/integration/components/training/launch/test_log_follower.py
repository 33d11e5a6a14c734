"""The followed log over connections that break: from a server that answers as the API server's log endpoint does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlparse

import pytest

from components.training.launch.kubernetes_client import Cluster, Pod
from components.training.launch.log_follower import FollowedLog, comparable, show
from mantis import progress
from mantis.logging import STEP, configure
from mantis.progress import Progress
from tests.fixtures.api_server import Kubeconfig
from tests.helpers.waiting import HANG_SECONDS

POD = Pod(name="p", uid="u", node=0, attempt=0, created="2026-01-01", phase="Running", waiting="")
LINES = [f"2026-11-23T06:00:0{index}.{fraction}Z line {index}" for index, fraction in enumerate(["1", "12", "0", "99"])]


class Answers(BaseHTTPRequestHandler):
    """The first connection breaks in the middle of a line, the second is refused, the third gives all again."""

    asked: ClassVar[list[dict[str, list[str]]]] = []

    def do_GET(self) -> None:
        self.asked.append(parse_qs(urlparse(self.path).query))
        turn = len(self.asked)
        if turn == 2:
            self.send_error(500)
            return
        whole = "".join(line + "\n" for line in LINES).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole[: len(LINES[0]) + len(LINES[1]) + 9] if turn == 1 else whole)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster(kubeconfig: Kubeconfig) -> Iterator[Cluster]:
    Answers.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig(server.server_port)
    yield Cluster("mantis")
    server.shutdown()


def test_every_line_comes_once(cluster: Cluster) -> None:
    heard: list[str] = []
    enough = threading.Event()

    def relay(line: str) -> None:
        heard.append(line)
        if len(heard) == len(LINES):
            enough.set()

    log = FollowedLog(cluster, POD, relay)
    assert enough.wait(HANG_SECONDS)
    log.finish()
    assert heard == [f"line {index}" for index in range(4)]
    assert "tailLines" in Answers.asked[0]
    assert all(int(asked["sinceSeconds"][0]) >= 30 for asked in Answers.asked[1:])


def test_times_compare_as_text() -> None:
    stamps = [
        "2026-11-23T06:00:00Z",
        "2026-11-23T06:00:00.000000001Z",
        "2026-11-23T06:00:00.1Z",
        "2026-11-23T06:00:01Z",
    ]
    assert sorted(stamps, key=comparable) == stamps
    assert comparable("2026-11-23T06:00:00.1Z") == comparable("2026-11-23T06:00:00.100Z")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_followed_line_moves_the_bar_and_keeps_its_one_prefix(
    form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Progress writes the line, the follower reads it: this test holds the two together, in both formats."""
    monkeypatch.setenv("MANTIS_LOG", form)
    monkeypatch.setenv(STEP, "train")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    configure()
    monkeypatch.setattr(Progress, "seconds_left", 4000.0)
    Progress(label="training", total=5000, unit="steps").advance(1200, note="loss 0.123  70.1 samples/s")
    line = capsys.readouterr().err.splitlines()[-1]

    monkeypatch.setenv(progress.PROGRESS_DIR, str(tmp_path))
    show(line)
    assert capsys.readouterr().err == f"{line}\n"
    state = json.loads((tmp_path / "train.json").read_text())
    assert (state["label"], state["done"], state["total"], state["unit"]) == ("training", 1200, 5000, "steps")
    assert (state["note"], state["left"]) == ("loss 0.123  70.1 samples/s", 4000.0)
