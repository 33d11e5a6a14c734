"""Published weights from a hub that is a real HTTP server here, into local and MinIO stores."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from mantis.artifacts.manifest import check_files
from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, InputError, IntegrityError, StoreError
from mantis.hub import download
from mantis.hub.client import ATTEMPTS
from mantis.models.weights.catalog import named_bases, published_base, published_bases, warnings
from mantis.models.weights.mirror import fetch_model, mirror_of, mirrors, model_identity, resolved, weights_of
from mantis.store.local import LocalStore

FUYU = "fuyu-8b"
FILES = {
    "config.json": b'{"model_type": "fuyu"}',
    "tokenizer.json": b'{"model": {}}',
    "model-00001-of-00002.safetensors": bytes(range(256)) * 8000,
    "model-00002-of-00002.safetensors": b"tensor" * 5000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"pickled" * 1000,
    "pytorch_model.bin.index.json": b"{}",
    "flax_model.msgpack": b"flax",
    "consolidated.safetensors": b"twice",
    "LICENSE": b"terms",
}
TAKEN = [
    "LICENSE",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
]
NEWEST = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """What the hub answers about models, and what can go wrong with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = dict(FILES)
        self.newest = NEWEST
        self.gated = False
        self.breaks: list[int] = []  # bytes after which the next downloads break off
        self.sent: list[tuple[str, str]] = []  # file, Range

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
            return self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        if "/revision/" in path:
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            sha = self.server.newest if revision == "main" else revision
            return self._json({"id": name, "sha": sha, "siblings": [], "tags": [], "downloads": 0, "likes": 0})
        if "/tree/" in path:
            return self._json([self._entry(name, data) for name, data in self.server.files.items()])
        if "/resolve/" in path:
            return self._send(path.rpartition("/")[2])
        return self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": git}
        if name.endswith((".safetensors", ".bin")):
            sha256 = hashlib.sha256(FILES.get(name, data)).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        return entry

    def _send(self, name: str) -> None:
        data = self.server.files[name]
        asked = self.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        part = data[start:]
        if self.server.breaks:
            part = part[: self.server.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(part)
        self.server.sent.append((name, asked))

    def _json(self, value: dict[str, Any] | list[dict[str, Any]]) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


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
def test_a_model_comes_whole_and_once(
    hub: Hub, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = request.getfixturevalue(kind)
    manifest = fetch_model(store, FUYU)
    base = published_base(FUYU)
    assert manifest.key == f"models/bases/{FUYU}/{base.revision}"
    assert [file.name for file in manifest.files] == TAKEN
    assert check_files(store, manifest) == []
    assert manifest.summary["licence"] == "CC-BY-NC-4.0"
    assert manifest.summary["forbids"] == "commercial"
    before = len(hub.sent)
    assert fetch_model(store, FUYU) == manifest
    assert len(hub.sent) == before
    assert not list(tmp_path.rglob(".fetching/*"))


def test_it_goes_on_where_it_broke_at_the_same_revision(hub: Hub, local_store: LocalStore) -> None:
    hub.breaks = [9**9, 9**9, 1_000_000, *[0] * ATTEMPTS]
    with pytest.raises(InputError, match="stops at 1,000,000"):
        fetch_model(local_store, "idefics2-8b")
    assert mirrors(local_store, "idefics2-8b") == {}
    hub.newest, before = "f" * 40, len(hub.sent)
    manifest = fetch_model(local_store, "idefics2-8b")
    assert manifest.summary["revision"] == NEWEST
    assert hub.sent[before] == ("model-00001-of-00002.safetensors", "bytes=1000000-")


def test_pickled_weights_come_only_where_there_are_no_safetensors(hub: Hub, local_store: LocalStore) -> None:
    hub.files = {name: data for name, data in FILES.items() if "safetensors" not in name}
    manifest = fetch_model(local_store, FUYU)
    names = [file.name for file in manifest.files]
    assert names == ["LICENSE", "config.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "tokenizer.json"]
    hub.files = {"config.json": b"{}"}
    with pytest.raises(InputError, match="neither safetensors"):
        fetch_model(local_store, "idefics-9b")


def test_other_bytes_than_promised_are_no_model(hub: Hub, local_store: LocalStore) -> None:
    name = "model-00002-of-00002.safetensors"
    hub.files[name] = b"!" + FILES[name][1:]
    with pytest.raises(IntegrityError, match=name):
        fetch_model(local_store, FUYU)
    assert mirrors(local_store, FUYU) == {}


def test_what_stands_in_the_way_is_said_with_its_remedy(
    hub: Hub, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    with pytest.raises(InputError, match="gated") as caught:
        fetch_model(local_store, "llama3-8b-instruct")
    assert f"{hub.url}/meta-llama/Meta-Llama-3-8B-Instruct" in caught.value.remedy
    assert "HF_TOKEN" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    monkeypatch.setattr(download, "SPARE", 1 << 60)
    with pytest.raises(StoreError, match="GB free"):
        fetch_model(local_store, "llama3-8b-instruct")
    assert hub.sent == []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached") as caught:
        fetch_model(local_store, "idefics2-8b")
    assert "model.base" in caught.value.remedy
    with pytest.raises(ConfigError, match="no published model"):
        fetch_model(local_store, "nonsense")


def test_a_name_means_its_mirror_and_another_revision_is_another_model(hub: Hub, local_store: LocalStore) -> None:
    settings = ModelSettings(family="idefics2", base="idefics2-8b")
    with pytest.raises(InputError, match="no copy of idefics2-8b") as caught:
        resolved(local_store, settings)
    assert "mantis model fetch idefics2-8b" in caught.value.remedy
    first = fetch_model(local_store, "idefics2-8b")
    assert resolved(local_store, settings).base == local_store.uri(first.key)
    assert weights_of(local_store, settings) == {"base": first}
    identity = model_identity(local_store, settings)
    assert identity["model.base"] == "idefics2-8b"
    assert identity["content"] == {"base": first.fingerprint}
    by_key = settings.model_copy(update={"base": first.key})
    assert resolved(local_store, by_key).base == local_store.uri(first.key)
    assert model_identity(local_store, by_key)["content"] == {"base": first.fingerprint}
    hub.files["config.json"] = b'{"model_type": "other"}'
    second = fetch_model(local_store, "idefics2-8b", revision="e" * 40)
    with pytest.raises(InputError, match="2 revisions"):
        mirror_of(local_store, published_base("idefics2-8b"))
    by_address = settings.model_copy(update={"base": local_store.uri(second.key)})
    assert model_identity(local_store, by_address)["content"] == {"base": second.fingerprint}
    assert second.fingerprint != first.fingerprint


def test_a_folder_is_known_by_what_it_holds(local_store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"a" * 100)
    settings = ModelSettings(base=str(folder))
    before = model_identity(local_store, settings)
    by_url = model_identity(local_store, settings.model_copy(update={"base": folder.as_uri()}))
    assert by_url["content"] == before["content"]
    (folder / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    assert model_identity(local_store, settings) != before
    assert model_identity(local_store, settings, ("vision",)) == settings.identity()
    with pytest.raises(ConfigError, match=r"model\.base = 'llama4' is no published model"):
        model_identity(local_store, ModelSettings(base="llama4"))
    with pytest.raises(ConfigError, match=r"model\.vision = .*no config\.json"):
        model_identity(local_store, ModelSettings(vision=str(tmp_path)))


def test_nothing_is_added_to_what_a_model_from_scratch_is(local_store: LocalStore) -> None:
    assert model_identity(local_store, ModelSettings()) == ModelSettings().identity()
    assert weights_of(local_store, ModelSettings()) == {}


def test_every_base_has_a_family_and_terms() -> None:
    from mantis.models.registry import family_names

    for base in published_bases().values():
        assert set(base.families) <= set(family_names())
        assert base.licence.asks
        assert base.origin
    assert {family for base in published_bases().values() for family in base.families} == set(family_names())
    found = named_bases(ModelSettings(family="fuyu", base=FUYU))
    assert "forbid commercial use" in warnings(found.values())[0]


def test_the_command_line_shows_terms_and_what_came(hub: Hub, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipelines.cli.main import app

    store = (tmp_path / "store").as_uri()
    done = CliRunner().invoke(app, ["model", "fetch", FUYU, "--store", store])
    assert done.exit_code == 0
    assert done.output.index("Name Adept as the author") < done.output.index("6 files")
    listed = CliRunner().invoke(app, ["model", "list", "--store", store])
    assert "cc-by-nc-4.0, not commercial" in listed.output
    assert "f41defefdb89, 0.00 GB" in listed.output
    assert CliRunner().invoke(app, ["model", "fetch", "--store", store]).exit_code == 2
