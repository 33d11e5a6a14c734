import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.benchmarks import benchmark_mirror
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.readers.benchmark_source import open_benchmark_source
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, InputError, IntegrityError
from mantis.store.local import LocalStore
from tests.fixtures.evaluation import WriteParquet

REVISION = "4c210bb7cf20e313376407b545523836b69e4f1c"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: a dataset's listing, and its files."""

    def __init__(self, files: dict[str, bytes], fetched: list[str], *arguments: Any) -> None:
        self.files, self.fetched = files, fetched
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/q-future/Q-Bench2-HF/revision/"):
            listed = [
                {"rfilename": name, "size": len(data), "lfs": {"sha256": hashlib.sha256(data).hexdigest()}}
                for name, data in self.files.items()
            ]
            self._send(json.dumps({"sha": REVISION, "siblings": listed}).encode())
        elif path.startswith("/api/datasets/TIGER-Lab/"):
            self.send_error(403)
        else:
            name = path.removeprefix(f"/datasets/q-future/Q-Bench2-HF/resolve/{REVISION}/")
            self.fetched.append(name)
            data = self.files[name]
            self._send(data if not self.fetched[3:] else data[::-1])  # the fourth time something broke it

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: int | str) -> None:
        pass


@pytest.fixture
def hub(
    tmp_path: Path, photographs: list[bytes], write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """A hub on loopback with two rows of Q-Bench2; yields the names of the files that were fetched."""
    row = {"image1": {"bytes": photographs[0], "path": None}, "image2": {"bytes": photographs[1], "path": None},
           "question": "Which is clearer?", "option0": "First", "option1": "Second", "option2": "N/A",
           "option3": "N/A", "question_type": 0, "question_concern": 1, "correct_choice": "A"}  # fmt: skip
    write_parquet(tmp_path / "dev.parquet", [row | {"id": number} for number in range(2)])
    files = {"data/dev-00000-of-00001.parquet": (tmp_path / "dev.parquet").read_bytes(), "README.md": b"no"}
    fetched: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, files, fetched))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield fetched
    server.shutdown()
    server.server_close()


def recipe() -> Recipe:
    return Recipe.model_validate({"name": "mirrored", "evaluation": {"source": "mirror"}})


@pytest.mark.parametrize("kind", ["local_store", "minio_store"])
def test_fetched_once_and_read_from_the_store(hub: list[Any], kind: str, request: pytest.FixtureRequest) -> None:
    store, benchmark = request.getfixturevalue(kind), load_benchmark("q-bench2")
    with pytest.raises(InputError, match="mantis benchmark fetch q-bench2"):
        benchmark_mirror.find_mirror(store, benchmark)
    manifest = benchmark_mirror.fetch(store, benchmark)
    assert manifest.key == f"sources/benchmarks/q-bench2/{REVISION}"
    assert [file.name for file in manifest.files] == ["files/data/dev-00000-of-00001.parquet"]
    assert benchmark_mirror.fetch(store, benchmark) == manifest == benchmark_mirror.find_mirror(store, benchmark)
    assert len(hub) == 1
    with open_benchmark_source(recipe(), benchmark, store) as source:
        read = source.read()
        assert source.identity == {"mirror": manifest.fingerprint}
        assert [len(sample.pictures[0].load()) > 1000 for sample in read.samples] == [True, True]


def test_a_changed_file_is_fetched_again(hub: list[Any], local_store: LocalStore) -> None:
    benchmark = load_benchmark("q-bench2")
    before = benchmark_mirror.fetch(local_store, benchmark)
    key = f"sources/benchmarks/q-bench2/{REVISION}/files/data/dev-00000-of-00001.parquet"
    whole = local_store.get(key)
    for changed in (b"cut off", whole[::-1]):
        local_store.put(key, changed)
        assert benchmark_mirror.fetch(local_store, benchmark) == before
        assert local_store.get(key) == whole
    assert len(hub) == 3
    local_store.put(key, b"cut off")
    with pytest.raises(IntegrityError, match="SHA-256 that the hub lists"):
        benchmark_mirror.fetch(local_store, benchmark)


def test_what_goes_wrong_is_said(hub: list[Any], local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"403.*HF_TOKEN"):
        benchmark_mirror.fetch(local_store, load_benchmark("mantis-eval"))
    with pytest.raises(ConfigError, match="generated, not published"):
        benchmark_mirror.fetch(local_store, load_benchmark("demo-multi"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot be reached.*copy the files"):
        benchmark_mirror.fetch(local_store, load_benchmark("q-bench2"))
