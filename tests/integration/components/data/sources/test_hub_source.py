"""A data set of the hub is read in place, by ranges, from a loopback server that answers as the hub does."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from benchmarks.form_writers import FILE_FORMS, Write
from components.data.sources.find import find_sources
from components.data.sources.source_identity import Memory
from components.data.step import prepare
from mantis.errors import ConfigError, InputError, StoreError
from mantis.hub.hub_store import HubStore
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore
from tests.fixtures.data import RowsOf, RunOn, encoded

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "org/cats"
LARGE = 400  # bytes from which the hub keeps a file in LFS
COLOURS = [(40 * number, 30, 200 - 40 * number) for number in range(5)]
IMAGES = {f"images/{number}.jpg": encoded(colour) for number, colour in enumerate(COLOURS)}
ROWS = [
    {
        "id": f"r{number}",
        "images": [path],
        "conversation": [
            {"role": "user", "content": "<image>Which colour?"},
            {"role": "assistant", "content": f"Number {number}."},
        ],
    }
    for number, path in enumerate(IMAGES)
]


class LoopbackHub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        self.sent: list[tuple[str, int]] = []
        self.broken = 0  # downloads that end after half of their bytes


class Answer(BaseHTTPRequestHandler):
    server: LoopbackHub

    def log_message(self, *_: str) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if path.startswith(f"/api/datasets/{NAME}/revision/"):
            return self._json({"id": NAME, "sha": COMMIT, "siblings": [], "tags": [], "downloads": 0, "likes": 0})
        if path.startswith(f"/api/datasets/{NAME}/tree/{COMMIT}"):
            folder = path.partition(COMMIT)[2].strip("/")
            below = {
                name: file
                for name, file in self.server.files.items()
                if name.startswith(f"{folder}/" if folder else "")
            }
            return self._json([self._entry(name, file.read_bytes()) for name, file in below.items()])
        if path.startswith(f"/datasets/{NAME}/resolve/{COMMIT}/"):
            return self._send(path.partition(f"{COMMIT}/")[2])
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git}
        if len(data) >= LARGE:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _send(self, name: str) -> None:
        data = self.server.files[name].read_bytes()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.server.broken:
            self.server.broken -= 1
            self.close_connection = True
            part = part[: len(part) // 2]
        self.wfile.write(part)
        self.server.sent.append((name, len(part)))

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    servers = []

    def start(folder: Path) -> LoopbackHub:
        server = LoopbackHub(folder)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        return server

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("write", FILE_FORMS, ids=lambda write: write.__name__)
def test_the_hub_and_a_disk_give_the_same_dataset(
    write: Write, tmp_path: Path, serve: Any, run_on: RunOn, data_of: RowsOf
) -> None:
    write(tmp_path / "cats", ROWS, IMAGES)
    hub = serve(tmp_path / "cats")
    hub.broken = 2
    here, there = run_on(tmp_path / "cats"), run_on(f"hf://datasets/{NAME}")
    first, second = prepare(here, "cats"), prepare(there, "cats")
    assert first.fingerprint == second.fingerprint
    assert data_of(here, first) == data_of(there, second)
    assert [row["images"] for row in data_of(there, second)] == [[data] for data in IMAGES.values()]


def test_a_folder_and_a_revision_of_a_set_are_read(tmp_path: Path, serve: Any) -> None:
    write = next(iter(FILE_FORMS))
    write(tmp_path / "set" / "nested" / "cats", ROWS, IMAGES)
    serve(tmp_path / "set")
    (source,) = find_sources(f"hf://datasets/{NAME}@main/nested/cats").values()
    assert source.url == f"hf://datasets/{NAME}@{COMMIT}/nested/cats/train.json"
    assert source.name == "cats"
    assert list(find_sources(f"hf://datasets/{NAME}/nested")) == ["cats"]


def test_large_files_are_not_downloaded_for_their_hash(tmp_path: Path, serve: Any, local_store: ObjectStore) -> None:
    (write,) = [write for write in FILE_FORMS if write.__name__ == "parquet_any_name"]
    write(tmp_path / "cats", ROWS, IMAGES)
    hub = serve(tmp_path / "cats")
    (source,) = find_sources(f"hf://datasets/{NAME}").values()
    found = source.fingerprint(Memory(store=local_store))
    assert hub.sent == []
    assert found == find_sources(str(tmp_path / "cats"))["cats"].fingerprint(Memory(store=LocalStore(tmp_path / "x")))


def test_a_wrong_address_is_named() -> None:
    with pytest.raises(ConfigError, match="is no data set of the hub"):
        find_sources("hf://models/org/name")


def test_a_set_that_is_not_there_is_named(tmp_path: Path, serve: Any) -> None:
    serve(tmp_path)
    with pytest.raises(InputError, match="has no public dataset org/dogs"):
        find_sources("hf://datasets/org/dogs")


def test_the_hub_is_only_read(tmp_path: Path, serve: Any) -> None:
    serve(tmp_path)
    with pytest.raises(StoreError, match="is read only"):
        HubStore(f"hf://datasets/{NAME}").put("a", b"")
