"""A data set of the hub is read in place, by ranges, from a loopback server that answers as the hub does."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

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
from tests.helpers.hub_server import COMMIT, HubServer, hub_server

NAME = "org/cats"
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


Serve = Callable[[Path], HubServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve the files of a folder as the data set NAME."""
    with ExitStack() as running:

        def start(folder: Path) -> HubServer:
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
            server = running.enter_context(hub_server(files, NAME))
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            return server

        yield start


@pytest.mark.parametrize("write", FILE_FORMS, ids=lambda write: write.__name__)
def test_the_hub_and_a_disk_give_the_same_dataset(
    write: Write, tmp_path: Path, serve: Serve, run_on: RunOn, data_of: RowsOf
) -> None:
    write(tmp_path / "cats", ROWS, IMAGES)
    hub = serve(tmp_path / "cats")
    hub.breaks = [10, 10]
    here, there = run_on(tmp_path / "cats"), run_on(f"hf://datasets/{NAME}")
    first, second = prepare(here, "cats"), prepare(there, "cats")
    assert first.fingerprint == second.fingerprint
    assert data_of(here, first) == data_of(there, second)
    assert [row["images"] for row in data_of(there, second)] == [[data] for data in IMAGES.values()]


def test_a_folder_and_a_revision_of_a_set_are_read(tmp_path: Path, serve: Serve) -> None:
    write = next(iter(FILE_FORMS))
    write(tmp_path / "set" / "nested" / "cats", ROWS, IMAGES)
    serve(tmp_path / "set")
    (source,) = find_sources(f"hf://datasets/{NAME}@main/nested/cats").values()
    assert source.url == f"hf://datasets/{NAME}@{COMMIT}/nested/cats/train.json"
    assert source.name == "cats"
    assert list(find_sources(f"hf://datasets/{NAME}/nested")) == ["cats"]


def test_large_files_are_not_downloaded_for_their_hash(tmp_path: Path, serve: Serve, local_store: ObjectStore) -> None:
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


def test_a_set_that_is_not_there_is_named(tmp_path: Path, serve: Serve) -> None:
    serve(tmp_path)
    with pytest.raises(InputError, match="has no public dataset org/dogs"):
        find_sources("hf://datasets/org/dogs")


def test_the_hub_is_only_read(tmp_path: Path, serve: Serve) -> None:
    serve(tmp_path)
    with pytest.raises(StoreError, match="is read only"):
        HubStore(f"hf://datasets/{NAME}").put("a", b"")
