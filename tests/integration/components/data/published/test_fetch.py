"""Published data sets come whole from the hub, and once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from components.data.published.fetch import fetch_subset
from components.data.published.fetched import fetched_sets
from mantis.artifacts.manifest import Manifest, check_files, read_manifest
from mantis.errors import ConfigError, InputError, IntegrityError, StoreError
from mantis.hub import download
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from tests.helpers.hub_server import COMMIT, TOKEN, HubServer, hub_server
from tests.helpers.waiting import until

REPOSITORY = "TIGER-Lab/Mantis-Instruct"
FILES = {
    "nlvr2/train-00000-of-00001.parquet": b"rows" * 500,
    "nlvr2/train_images.zip": bytes(range(256)) * 20_000,
    "nlvr2/val-00000-of-00001.parquet": b"held out",  # so small that it is kept in git, not in LFS
    "nlvr2/val_images.zip": b"zip" * 1000,
    "nlvr2/README.md": b"not data",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server(FILES, REPOSITORY) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.mark.parametrize("kind", ["local_store", "minio_store"])
def test_a_subset_comes_whole_and_once(
    hub: HubServer, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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


@pytest.mark.parametrize("kind", ["local_store", "minio_store"])
@pytest.mark.parametrize("shared", [True, False], ids=["one-store", "two-stores"])
def test_two_commands_fetch_the_same_set_at_the_same_time(
    hub: HubServer, kind: str, shared: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The second begins when the first has downloaded a file, and has not yet put it into its store."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(download, "FILES_AT_ONCE", 1)
    caplog.set_level("INFO")
    store = request.getfixturevalue(kind)
    other = open_store(store.url if shared else f"{store.url}/other")
    put_file = store.put_file
    second: list[Future[Manifest]] = []

    def slow(key: str, path: Path) -> None:
        if not second:
            second.append(pool.submit(fetch_subset, other, "nlvr2"))
            until("the second", lambda: second[0].done() or "waits for its end" in caplog.text)
        put_file(key, path)

    monkeypatch.setattr(store, "put_file", slow)
    with ThreadPoolExecutor(1) as pool:
        manifest = fetch_subset(store, "nlvr2")
        assert second[0].result().files == manifest.files
    assert check_files(store, manifest) == check_files(other, second[0].result()) == []
    assert len(hub.sent) == (2 if shared else 4), "a store gets each file once"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.breaks = [1000, 3_000_000]
    manifest = fetch_subset(local_store, "nlvr2")
    assert check_files(local_store, manifest) == []
    assert sum(sent for _, _, sent in hub.sent) == sum(map(len, list(FILES.values())[:2])), "no byte came twice"


def test_what_an_earlier_attempt_left_is_used_at_the_same_revision(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete file is not fetched again; huggingface_hub begins an incomplete one anew."""
    monkeypatch.setattr(download, "FILES_AT_ONCE", 1)
    hub.damaged["nlvr2/train_images.zip"] = b"damaged"
    with pytest.raises((InputError, IntegrityError)):
        fetch_subset(local_store, "nlvr2")
    assert read_manifest(local_store, "sources/nlvr2") is None
    hub.damaged, hub.newest, before = {}, "f" * 40, len(hub.sent)
    assert fetch_subset(local_store, "nlvr2").summary["revision"] == COMMIT
    assert [name for name, _, _ in hub.sent[before:]] == ["nlvr2/train_images.zip"]


def test_a_file_that_is_whole_in_the_staging_folder_is_not_fetched_again(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("The store is full.", remedy="Free space.")

    monkeypatch.setattr(local_store, "put_file", full)
    with pytest.raises(StoreError, match="is full"):
        fetch_subset(local_store, "nlvr2")
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    whole = {path.name for path in (local_store.root / ".fetching").rglob("nlvr2/*") if path.is_file()}
    assert whole
    before = len(hub.sent)
    fetch_subset(local_store, "nlvr2")
    assert whole.isdisjoint(name.rpartition("/")[2] for name, _, _ in hub.sent[before:])


def test_several_files_come_at_once(hub: HubServer, local_store: LocalStore) -> None:
    hub.expect_together(4)
    assert len(fetch_subset(local_store, "nlvr2", splits=("train", "val")).files) == 4


def test_ctrl_c_ends_the_command_and_a_later_one_goes_on(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "wait", pressed)
        with pytest.raises(KeyboardInterrupt):
            fetch_subset(local_store, "nlvr2")
    assert read_manifest(local_store, "sources/nlvr2") is None
    assert check_files(local_store, fetch_subset(local_store, "nlvr2")) == []


def test_the_first_error_ends_the_command(hub: HubServer, local_store: LocalStore) -> None:
    hub.status = 501  # huggingface_hub repeats requests that end in 503 for 20 s
    with pytest.raises(InputError, match="501") as caught:
        fetch_subset(local_store, "nlvr2")
    assert "later" in caught.value.remedy
    hub.status = 403
    with pytest.raises(InputError, match="403") as caught:
        fetch_subset(local_store, "nlvr2")
    assert "HF_TOKEN" in caught.value.remedy


def test_a_server_without_ranges_is_read_from_the_start(hub: HubServer, local_store: LocalStore) -> None:
    hub.ranges = False
    hub.breaks = [100, 2000]
    manifest = fetch_subset(local_store, "nlvr2")
    assert check_files(local_store, manifest) == []


def test_other_bytes_than_promised_never_reach_the_store(hub: HubServer, local_store: LocalStore) -> None:
    name = "nlvr2/train_images.zip"
    hub.damaged[name] = b"!" + FILES[name][1:]
    with pytest.raises(IntegrityError, match=r"train_images\.zip"):
        fetch_subset(local_store, "nlvr2")
    assert local_store.stat("sources/nlvr2/train_images.zip") is None
    hub.damaged = {}
    fetch_subset(local_store, "nlvr2")


def test_a_damaged_file_in_the_store_is_fetched_again(hub: HubServer, local_store: LocalStore) -> None:
    fetch_subset(local_store, "nlvr2")
    local_store.delete("sources/nlvr2/manifest.json")
    data = local_store.get("sources/nlvr2/train_images.zip")
    local_store.put("sources/nlvr2/train_images.zip", data[:-1] + b"?")
    fetch_subset(local_store, "nlvr2")
    assert local_store.get("sources/nlvr2/train_images.zip") == data


def test_a_gated_set_says_how_to_get_in(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    with pytest.raises(InputError, match="gated") as caught:
        fetch_subset(local_store, "nlvr2")
    assert "HF_TOKEN" in caught.value.remedy
    assert f"{hub.url}/datasets/{REPOSITORY}" in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch_subset(local_store, "nlvr2")


def test_without_a_network_the_remedy_is_plain(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached") as caught:
        fetch_subset(local_store, "nlvr2")
    assert "--source" in caught.value.remedy


def test_too_little_disk_is_said_before_the_first_byte(
    hub: HubServer, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPARE", 1 << 60)
    with pytest.raises(StoreError, match="GB free"):
        fetch_subset(local_store, "nlvr2")
    assert hub.sent == []


def test_what_the_hub_lacks_is_named(hub: HubServer, local_store: LocalStore) -> None:
    hub.files = {}
    with pytest.raises(InputError, match="no files of train in star"):
        fetch_subset(local_store, "star")
    with pytest.raises(InputError, match="no such revision"):
        fetch_subset(local_store, "star", revision="nonsense")
    with pytest.raises(InputError, match="has no public dataset liuhaotian"):
        fetch_subset(local_store, "llava_pretrain")
    with pytest.raises(ConfigError, match="no published subset"):
        fetch_subset(local_store, "nonsense")


def test_the_command_line_says_what_came(hub: HubServer, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipelines.cli.main import app

    store = (tmp_path / "store").as_uri()
    done = CliRunner().invoke(app, ["data", "fetch", "nlvr2", "--store", store])
    assert done.exit_code == 0
    assert "2 files" in done.output
    assert "nlvr2" in fetched_sets(open_store(store))
    listed = CliRunner().invoke(app, ["data", "list", "--store", store], env={"COLUMNS": "200"})
    assert "fetched, 0.01 GB" in listed.output
