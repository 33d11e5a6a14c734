import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from components.data.published.fetch import fetch_subset
from components.data.published.fetched import fetched_sets
from mantis.artifacts.manifest import check_files, read_manifest
from mantis.errors import ConfigError, InputError, IntegrityError, StoreError
from mantis.hub import download
from mantis.hub.client import ATTEMPTS
from mantis.store.local import LocalStore
from mantis.store.opening import open_store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "TIGER-Lab/Mantis-Instruct"
FILES = {
    "nlvr2/train-00000-of-00001.parquet": b"rows" * 500,
    "nlvr2/train_images.zip": bytes(range(256)) * 20_000,
    "nlvr2/val-00000-of-00001.parquet": b"held out",
    "nlvr2/val_images.zip": b"zip" * 1000,
    "nlvr2/README.md": b"not data",
}
SMALL = "nlvr2/val-00000-of-00001.parquet"  # kept in git, not in LFS


class Hub(ThreadingHTTPServer):
    """The three answers of the hub that fetching asks for, and what can go wrong with them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = dict(FILES)
        self.gated = False
        self.token = ""
        self.breaks: list[int] = []  # bytes after which the next downloads break off
        self.ranges = True
        self.sent: list[tuple[str, str, int]] = []  # path, Range, bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: str) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if self.server.gated and self.headers.get("Authorization") != "Bearer let-me-in":
            return self._error(403, "GatedRepo")
        if path.startswith(f"/api/datasets/{REPOSITORY}/revision/"):
            if path.endswith("/nonsense"):
                return self._error(404, "RevisionNotFound")
            return self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": [], "tags": [], "downloads": 0, "likes": 0})
        if path.startswith(f"/api/datasets/{REPOSITORY}/tree/{COMMIT}/"):
            return self._json([self._entry(name, data) for name, data in self.server.files.items()])
        if path.startswith(f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"):
            return self._send(path.rpartition(f"{COMMIT}/")[2])
        return self._error(404, "RepoNotFound")

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": git}
        if name != SMALL:
            sha256 = hashlib.sha256(FILES.get(name, data)).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        return entry

    def _send(self, name: str) -> None:
        data = self.server.files[name]
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        self.send_response(206 if asked and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        part = data[start:]
        if self.server.breaks:
            part = part[: self.server.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(part)
        self.server.sent.append((name, asked, len(part)))

    def _json(self, value: dict[str, Any] | list[dict[str, Any]]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["local_store", "minio_store"])
def test_a_subset_comes_whole_and_once(
    hub: Hub, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = request.getfixturevalue(kind)
    manifest = fetch_subset(store, "nlvr2")
    assert [file.name for file in manifest.files] == ["train-00000-of-00001.parquet", "train_images.zip"]
    assert store.get("sources/nlvr2/train_images.zip") == FILES["nlvr2/train_images.zip"]
    assert check_files(store, manifest) == []
    assert manifest.summary["revision"] == COMMIT
    assert fetched_sets(store) == {"nlvr2": manifest}
    before = len(hub.sent)
    assert fetch_subset(store, "nlvr2") == manifest
    assert len(hub.sent) == before
    both = fetch_subset(store, "nlvr2", splits=("val",))
    assert [file.name for file in both.files] == sorted(
        name.rpartition("/")[2] for name in FILES if "README" not in name
    )
    assert {name for name, _, _ in hub.sent[before:]} == {"nlvr2/val-00000-of-00001.parquet", "nlvr2/val_images.zip"}
    assert not list(tmp_path.rglob(".fetching/*"))


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, local_store: LocalStore) -> None:
    hub.breaks = [1000, 1000, 3_000_000, 70_000]
    fetch_subset(local_store, "nlvr2")
    starts = [asked for name, asked, _ in hub.sent if name.endswith("train_images.zip")]
    assert starts[0] == "bytes=0-"
    assert len(starts) == 3
    assert sum(sent for _, _, sent in hub.sent) == sum(map(len, list(FILES.values())[:2])), "no byte came twice"


def test_what_an_earlier_attempt_left_is_used_at_the_same_revision(hub: Hub, local_store: LocalStore) -> None:
    hub.breaks = [2000, 2_000_000, *[0] * ATTEMPTS]
    with pytest.raises(InputError, match="stops at"):
        fetch_subset(local_store, "nlvr2")
    assert read_manifest(local_store, "sources/nlvr2") is None
    assert hub.breaks == []
    before = len(hub.sent)
    fetch_subset(local_store, "nlvr2")
    again = hub.sent[before:]
    assert [name for name, _, _ in again] == ["nlvr2/train_images.zip"]
    assert again[0][1] == "bytes=2000000-"


def test_a_server_without_ranges_is_read_from_the_start(hub: Hub, local_store: LocalStore) -> None:
    hub.ranges = False
    hub.breaks = [100, 2000, 100_000]
    manifest = fetch_subset(local_store, "nlvr2")
    assert check_files(local_store, manifest) == []


def test_other_bytes_than_promised_never_reach_the_store(hub: Hub, local_store: LocalStore) -> None:
    name = "nlvr2/train_images.zip"
    hub.files[name] = b"!" + FILES[name][1:]
    with pytest.raises(IntegrityError, match=r"train_images\.zip"):
        fetch_subset(local_store, "nlvr2")
    assert local_store.stat("sources/nlvr2/train_images.zip") is None
    hub.files[name] = FILES[name]
    fetch_subset(local_store, "nlvr2")


def test_a_damaged_file_in_the_store_is_fetched_again(hub: Hub, local_store: LocalStore) -> None:
    fetch_subset(local_store, "nlvr2")
    local_store.delete("sources/nlvr2/manifest.json")
    data = local_store.get("sources/nlvr2/train_images.zip")
    local_store.put("sources/nlvr2/train_images.zip", data[:-1] + b"?")
    fetch_subset(local_store, "nlvr2")
    assert local_store.get("sources/nlvr2/train_images.zip") == data


def test_a_gated_set_says_how_to_get_in(hub: Hub, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = True
    with pytest.raises(InputError, match="gated") as caught:
        fetch_subset(local_store, "nlvr2")
    assert "HF_TOKEN" in caught.value.remedy
    assert f"{hub.url}/datasets/{REPOSITORY}" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    fetch_subset(local_store, "nlvr2")


def test_without_a_network_the_remedy_is_plain(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached") as caught:
        fetch_subset(local_store, "nlvr2")
    assert "--source" in caught.value.remedy


def test_too_little_disk_is_said_before_the_first_byte(
    hub: Hub, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPARE", 1 << 60)
    with pytest.raises(StoreError, match="GB free"):
        fetch_subset(local_store, "nlvr2")
    assert hub.sent == []


def test_what_the_hub_lacks_is_named(hub: Hub, local_store: LocalStore) -> None:
    hub.files = {}
    with pytest.raises(InputError, match="no files of train in star"):
        fetch_subset(local_store, "star")
    with pytest.raises(InputError, match="no such revision"):
        fetch_subset(local_store, "star", revision="nonsense")
    with pytest.raises(InputError, match="has no public dataset liuhaotian"):
        fetch_subset(local_store, "llava_pretrain")
    with pytest.raises(ConfigError, match="no published subset"):
        fetch_subset(local_store, "nonsense")


def test_the_command_line_says_what_came(hub: Hub, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipelines.cli.main import app

    store = (tmp_path / "store").as_uri()
    done = CliRunner().invoke(app, ["data", "fetch", "nlvr2", "--store", store])
    assert done.exit_code == 0
    assert "2 files" in done.output
    assert "nlvr2" in fetched_sets(open_store(store))
    listed = CliRunner().invoke(app, ["data", "list", "--store", store], env={"COLUMNS": "200"})
    assert "fetched, 0.01 GB" in listed.output
