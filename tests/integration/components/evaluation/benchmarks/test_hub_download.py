"""Files of the hub come over several connections, in parts that survive a broken connection and a stopped command."""

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.benchmarks import benchmark_mirror, hub_download
from components.evaluation.benchmarks.benchmark_catalog import Benchmark, BenchmarkHub, load_benchmark
from components.evaluation.benchmarks.hub_download import BenchmarkFile, HubDownload
from mantis.errors import InputError
from mantis.progress import Progress
from mantis.store.local import LocalStore

REVISION = "a" * 40
BLOCK = 10_000  # bytes that a connection sends at once
PAUSE = 0.02  # seconds between two blocks of a connection


class Hub:
    """A slow hub with support for ranges. `breaks` counts the connections that still end too early."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.breaks, self.ranges, self.supports_ranges = files, 0, list[tuple[int, int]](), True
        self.lasts = 1000  # requests that the hub answers before it dies
        self.datasets = {"lmms-lab/old"}
        self.open, self.most, self.lock = 0, 0, threading.Lock()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        if path.startswith("/api/"):
            dataset = path.removeprefix("/api/datasets/").partition("/revision/")[0]
            listed = [{"rfilename": name, "size": len(data), "lfs": {"sha256": hashlib.sha256(data).hexdigest()}}
                      for name, data in self.files.items()]  # fmt: skip
            self.send(request, json.dumps({"sha": REVISION, "siblings": listed}).encode(), dataset in self.datasets)
            return
        data = self.files[path.rpartition("/")[2]]
        first, last = (int(part) for part in request.headers["Range"].removeprefix("bytes=").split("-"))
        with self.lock:
            self.ranges.append((first, last))
            self.open += 1
            self.most = max(self.most, self.open)
            broken, dead = self.breaks > 0, len(self.ranges) > self.lasts
            self.breaks -= broken
        part = data[first : last + 1] if self.supports_ranges else data
        request.send_response(206 if self.supports_ranges else 200)
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        for start in range(0, 0 if dead else len(part) // 2 if broken else len(part), BLOCK):
            time.sleep(PAUSE)
            request.wfile.write(part[start : start + BLOCK])
        with self.lock:
            self.open -= 1

    @staticmethod
    def send(request: http.server.BaseHTTPRequestHandler, data: bytes, known: bool) -> None:
        if not known:
            request.send_error(401)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a large file and two small ones; parts have 100,000 bytes."""
    large = hashlib.shake_256(b"large").digest(1_050_000)
    made = Hub({"large.zip": large, "empty.json": b"", "small.json": b"[]"})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(hub_download, "PART", 100_000)
    monkeypatch.setattr(hub_download, "PAUSE", 0.01)
    yield made
    server.shutdown()
    server.server_close()


def fetched(hub: Hub, staging: Path) -> dict[str, bytes]:
    files = [BenchmarkFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
             for name, data in hub.files.items()]  # fmt: skip
    progress = Progress(label="test", total=None, unit="bytes")
    download = HubDownload(dataset="me/data", revision=REVISION, staging=staging, progress=progress)
    return {file.name: path.read_bytes() for file, path in download.files(files)}


def test_several_connections_are_open_at_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    assert fetched(hub, tmp_path / "many") == hub.files
    several, most, hub.most = time.monotonic() - began, hub.most, 0
    monkeypatch.setattr(hub_download, "CONNECTIONS", 1)
    began = time.monotonic()
    assert fetched(hub, tmp_path / "one") == hub.files
    # The hub counts an answer until its thread ends, so a next request may find the one before.
    assert most > 4 > 2 >= hub.most
    assert time.monotonic() - began > several
    assert not (tmp_path / "many").exists()


def test_a_broken_connection_continues_at_its_byte(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = 6
    assert fetched(hub, tmp_path / "staging") == hub.files
    bytes_sent = sum(last - first + 1 for first, last in hub.ranges)
    assert len(hub.ranges) == 11 + 1 + 6
    assert bytes_sent < 1_050_002 + 6 * 60_000  # each broken part was asked again from its middle


def test_a_stopped_download_loses_nothing(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.breaks, hub.lasts = 4, 8
    monkeypatch.setattr(hub_download, "ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"broke off at byte [\d,]+.*continues where it stopped"):
        fetched(hub, tmp_path / "staging")
    kept = sum(path.stat().st_size for path in (tmp_path / "staging").iterdir())
    assert kept > 100_000
    hub.breaks, hub.lasts, hub.ranges = 0, 1000, []
    assert fetched(hub, tmp_path / "staging") == hub.files
    assert sum(last - first + 1 for first, last in hub.ranges) == 1_050_002 - kept


def test_a_hub_without_ranges_is_read_all_the_same(hub: Hub, tmp_path: Path) -> None:
    hub.supports_ranges = False
    assert fetched(hub, tmp_path / "staging") == hub.files


def benchmark(*moved_from: str) -> Benchmark:
    given = BenchmarkHub(dataset="lmms-lab-encoder/new", moved_from=moved_from, revision=REVISION, files=("*",))
    return load_benchmark("mmmu").model_copy(update={"hub": given})


def test_a_moved_dataset_is_found_under_its_earlier_name(hub: Hub, local_store: LocalStore) -> None:
    with pytest.raises(InputError, match=r"lmms-lab-encoder/new.*401"):
        benchmark_mirror.fetch(local_store, benchmark())
    with pytest.raises(InputError, match=r"lmms-lab-encoder/new.*401"):
        benchmark_mirror.fetch(local_store, benchmark("lmms-lab/older"))
    made = benchmark_mirror.fetch(local_store, benchmark("lmms-lab/older", "lmms-lab/old"))
    assert made.summary["dataset"] == "lmms-lab/old"
    assert {file.name: file.size for file in made.files} == {
        "files/large.zip": 1_050_000, "files/empty.json": 0, "files/small.json": 2}  # fmt: skip
    hub.datasets.add("lmms-lab-encoder/new")
    assert benchmark_mirror.fetch(local_store, benchmark("lmms-lab/old")) == made


def test_a_moved_dataset_keeps_its_addresses() -> None:
    moved = benchmark("lmms-lab/old")
    before = moved.model_copy(update={"hub": BenchmarkHub(dataset="lmms-lab/old", revision=REVISION, files=("*",))})
    assert moved.revision() == before.revision()
    assert benchmark().revision() != before.revision()
