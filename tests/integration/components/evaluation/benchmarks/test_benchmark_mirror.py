"""Published benchmarks are mirrored from the hub into the store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.evaluation.benchmarks import benchmark_mirror
from components.evaluation.benchmarks.benchmark_catalog import Benchmark, BenchmarkHub, load_benchmark
from components.evaluation.readers.benchmark_source import open_benchmark_source
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, InputError, IntegrityError
from mantis.store.local import LocalStore
from tests.fixtures.evaluation import WriteParquet
from tests.helpers.hub_server import HubServer, hub_server

REVISION = "4c210bb7cf20e313376407b545523836b69e4f1c"
FILE = "data/dev-00000-of-00001.parquet"


@pytest.fixture
def hub(
    tmp_path: Path, photographs: list[bytes], write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """A hub with two rows of Q-Bench2."""
    row = {"image1": {"bytes": photographs[0], "path": None}, "image2": {"bytes": photographs[1], "path": None},
           "question": "Which is clearer?", "option0": "First", "option1": "Second", "option2": "N/A",
           "option3": "N/A", "question_type": 0, "question_concern": 1, "correct_choice": "A"}  # fmt: skip
    write_parquet(tmp_path / "dev.parquet", [row | {"id": number} for number in range(2)])
    files = {FILE: (tmp_path / "dev.parquet").read_bytes(), "data/empty.json": b"", "README.md": b"no"}
    with hub_server(files, "q-future/Q-Bench2-HF") as server:
        server.newest = REVISION
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HOME", str(tmp_path))  # a download into MinIO has its partial files in the cache
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def recipe() -> Recipe:
    return Recipe.model_validate({"name": "mirrored", "evaluation": {"source": "mirror"}})


@pytest.mark.parametrize("kind", ["local_store", "minio_store"])
def test_fetched_once_and_read_from_the_store(hub: HubServer, kind: str, request: pytest.FixtureRequest) -> None:
    store, benchmark = request.getfixturevalue(kind), load_benchmark("q-bench2")
    with pytest.raises(InputError, match="mantis benchmark fetch q-bench2"):
        benchmark_mirror.find_mirror(store, benchmark)
    manifest = benchmark_mirror.fetch(store, benchmark)
    assert manifest.key == f"sources/benchmarks/q-bench2/{REVISION}"
    assert [file.name for file in manifest.files] == ["files/data/dev-00000-of-00001.parquet"]
    assert benchmark_mirror.fetch(store, benchmark) == manifest == benchmark_mirror.find_mirror(store, benchmark)
    assert len(hub.sent) == 1
    with open_benchmark_source(recipe(), benchmark, store) as source:
        read = source.read()
        assert source.identity == {"mirror": manifest.fingerprint}
        assert [len(sample.pictures[0].load()) > 1000 for sample in read.samples] == [True, True]


def test_a_changed_file_is_fetched_again(hub: HubServer, local_store: LocalStore) -> None:
    benchmark = load_benchmark("q-bench2")
    before = benchmark_mirror.fetch(local_store, benchmark)
    key = f"sources/benchmarks/q-bench2/{REVISION}/files/data/dev-00000-of-00001.parquet"
    whole = local_store.get(key)
    for changed in (b"cut off", whole[::-1]):
        local_store.put(key, changed)
        assert benchmark_mirror.fetch(local_store, benchmark) == before
        assert local_store.get(key) == whole
    assert len(hub.sent) == 3
    local_store.put(key, b"cut off")
    hub.damaged[FILE] = whole[::-1]
    with pytest.raises(IntegrityError, match="the hash that the hub gives"):
        benchmark_mirror.fetch(local_store, benchmark)


def test_what_goes_wrong_is_said(hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no public dataset.*HF_TOKEN"):
        benchmark_mirror.fetch(local_store, load_benchmark("mantis-eval"))
    with pytest.raises(ConfigError, match="generated, not published"):
        benchmark_mirror.fetch(local_store, load_benchmark("demo-multi"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot be reached.*copy the files"):
        benchmark_mirror.fetch(local_store, load_benchmark("q-bench2"))


@pytest.fixture
def renamed_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with a set under its former name."""
    files = {"data/large.zip": bytes(1000), "data/empty.json": b"", "README.md": b"no"}
    with hub_server(files, "lmms-lab/old") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def moved(*moved_from: str) -> Benchmark:
    given = BenchmarkHub(dataset="lmms-lab-encoder/new", moved_from=moved_from, revision=REVISION, files=("data/*",))
    return load_benchmark("mmmu").model_copy(update={"hub": given})


def test_a_moved_dataset_is_found_under_its_earlier_name(renamed_hub: HubServer, local_store: LocalStore) -> None:
    for names in ((), ("lmms-lab/older",)):
        with pytest.raises(InputError, match="no public dataset lmms-lab-encoder/new"):
            benchmark_mirror.fetch(local_store, moved(*names))
    made = benchmark_mirror.fetch(local_store, moved("lmms-lab/older", "lmms-lab/old"))
    assert made.summary["dataset"] == "lmms-lab/old"
    assert {file.name: file.size for file in made.files} == {"files/data/large.zip": 1000, "files/data/empty.json": 0}
    renamed_hub.names.add("lmms-lab-encoder/new")
    assert benchmark_mirror.fetch(local_store, moved("lmms-lab/old")) == made


def test_a_moved_dataset_keeps_its_addresses() -> None:
    before = BenchmarkHub(dataset="lmms-lab/old", revision=REVISION, files=("data/*",))
    assert moved("lmms-lab/old").revision() == moved().model_copy(update={"hub": before}).revision()
    assert moved().revision() != moved("lmms-lab/old").revision()
