"""Published weights: mirrored from a hub that is played by a real server here, and named by recipes."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import pytest
from typer.testing import CliRunner

from components.core.artifacts import check_files
from components.core.errors import ConfigError, InputError
from components.core.settings import ModelSettings
from components.models import bases
from components.models.bases import fetch_model, located, mirrors, warnings, weights_identity
from pipelines.cli import app

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
NAME, REPOSITORY = "idefics2-8b", "HuggingFaceM4/idefics2-8b"
FILES = {
    "config.json": b'{"model_type": "idefics2"}',
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 4000,
    "model-00002-of-00002.safetensors": b"weights" * 999,
    "model.safetensors.index.json": b"{}",
    "modeling_remote.py": b"print('never fetched')",
    "pytorch_model.bin": b"a pickle, never fetched",
}


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path, files = unquote(urlparse(self.path).path), self.server.files
        if self.server.gated and self.headers.get("Authorization") != "Bearer let-me-in":
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": [], "tags": [], "downloads": 0, "likes": 0})
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            self._json([self._entry(name, data) for name, data in files.items()])
        else:
            name = path.rpartition("/")[2]
            self.server.sent.append(name)
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self._send(206, files[name][start:])

    def _entry(self, name, data):
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": oid}
        if name.endswith((".safetensors", ".bin")):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), ("Content-Type", "application/json"))

    def _send(self, status, body, *headers):
        self.send_response(status)
        for header in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.files, server.gated, server.sent = dict(FILES), False, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()


def test_weights_and_what_is_read_beside_them_are_mirrored_once(hub, local_store):
    manifest = fetch_model(local_store, NAME)
    names = {file.name for file in manifest.files}
    assert names == set(FILES) - {"modeling_remote.py", "pytorch_model.bin"}
    assert manifest.summary["revision"] == COMMIT
    assert check_files(local_store, manifest) == []
    sent = list(hub.sent)
    assert fetch_model(local_store, NAME) == manifest
    assert hub.sent == sent


def test_a_gated_model_says_what_to_do_and_opens_with_a_token(hub, local_store, monkeypatch):
    hub.gated = True
    with pytest.raises(InputError, match="is gated") as refused:
        fetch_model(local_store, NAME)
    assert "HF_TOKEN" in refused.value.remedy
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    assert fetch_model(local_store, NAME).files


def test_pickled_weights_are_refused(hub, local_store):
    hub.files = {name: data for name, data in FILES.items() if not name.endswith(".safetensors")}
    with pytest.raises(InputError, match="no safetensors, only pickled weights"):
        fetch_model(local_store, NAME)


def test_what_is_not_known_or_not_reachable(local_store, monkeypatch):
    with pytest.raises(ConfigError, match="'gpt-5' is no published model that is known"):
        fetch_model(local_store, "gpt-5")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be reached"):
        fetch_model(local_store, NAME)


def test_a_recipes_name_means_the_mirror_and_its_bytes(hub, local_store):
    settings = ModelSettings(family="idefics2", base=NAME)
    with pytest.raises(InputError, match=r"model\.base = 'idefics2-8b' is not in"):
        mirrors(settings, local_store)
    manifest = fetch_model(local_store, NAME)
    assert located(settings, local_store).base == manifest.uri
    assert mirrors(settings, local_store) == {"base": manifest}
    assert weights_identity(settings, local_store) == {"base": manifest.fingerprint}
    assert weights_identity(ModelSettings(), local_store) == {}


def test_another_byte_of_a_folder_is_another_identity(local_store, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    settings = ModelSettings(base=str(tmp_path))
    before = weights_identity(settings, local_store)
    assert before == weights_identity(settings, local_store)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert weights_identity(settings, local_store) != before


def test_terms_are_told():
    assert warnings(ModelSettings(base="fuyu-8b"), ["text"]) == [
        "the terms of fuyu-8b forbid commercial use: Creative Commons Attribution-NonCommercial 4.0"
    ]
    llava = ModelSettings(base="llama3-8b-instruct", vision="clip-vit-large-patch14-336")
    assert any("random numbers" in line for line in warnings(llava, ["projector", "text"]))
    assert not any("random numbers" in line for line in warnings(llava, ["projector"]))
    assert any("no licence is known for clip" in line for line in warnings(llava, ["text"]))


def test_the_command_lists_and_fetches(hub, tmp_path):
    store = f"file://{tmp_path}"
    done = CliRunner().invoke(app, ["fetch-model", NAME, "--store", store])
    assert done.exit_code == 0, done.output
    listed = CliRunner().invoke(app, ["fetch-model", "--store", store], env={"COLUMNS": "200"})
    assert COMMIT[:12] in listed.output
    assert all(name in listed.output for name in bases.bases())
