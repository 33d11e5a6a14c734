"""One contract for all stores: a local folder, a real MinIO, and other clouds through obstore."""

import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from mantis.artifacts.store_addresses import key_below, key_of
from mantis.errors import ConfigError, NotFoundError, StoreError
from mantis.store.base import ObjectStore, delete_tree, download_tree, upload_tree
from mantis.store.lance_tables import open_table, write_table
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from tests.fixtures.api_server import Answer
from tests.helpers.loopback import running


@pytest.fixture(params=["local_store", "minio_store", "cloud_memory", "cloud_minio", "cloud_google"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return request.getfixturevalue(request.param)


def test_what_is_put_is_got(store: ObjectStore) -> None:
    store.put("a/b/object", b"0123456789")
    assert store.get("a/b/object") == b"0123456789"
    assert store.stat("a/b/object").size == 10
    store.put("a/b/object", b"new")
    assert store.get("a/b/object") == b"new"


def test_ranges(store: ObjectStore) -> None:
    store.put("object", bytes(range(100)))
    assert store.get_range("object", 0, 1) == b"\x00"
    assert store.get_range("object", 40, 3) == bytes([40, 41, 42])
    assert store.get_range("object", 98, 50) == bytes([98, 99])


def test_ranges_beyond_the_end_are_empty(store: ObjectStore) -> None:
    store.put("object", b"0123")
    store.put("nothing", b"")
    assert store.get_range("object", 4, 10) == store.get_range("object", 40, 1) == b""
    assert store.get_range("object", 1, 0) == store.get_range("nothing", 0, 10) == b""


def test_empty_object(store: ObjectStore) -> None:
    store.put("nothing", b"")
    assert store.get("nothing") == b""
    assert store.stat("nothing").size == 0


def test_missing_object(store: ObjectStore) -> None:
    assert store.stat("missing") is None
    for read in (store.get, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(NotFoundError, match="missing"):
            read("missing")


def test_missing_object_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.get_file("missing", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_list_is_sorted_and_bounded_by_the_folder(store: ObjectStore) -> None:
    for key in ("runs/b/2", "runs/b/1", "runs/a/1", "runs2/x", "runs-other"):
        store.put(key, b"x")
    assert [entry.key for entry in store.list("runs")] == ["runs/a/1", "runs/b/1", "runs/b/2"]
    assert [entry.key for entry in store.list("nowhere")] == []
    assert {"runs/a/1", "runs/b/1", "runs/b/2"} <= {entry.key for entry in store.list("")}


def test_children_are_those_directly_below(store: ObjectStore) -> None:
    for key in ("b/2", "b/1", "b/inner/1", "a/1", "top", "b2/x"):
        store.put(key, b"x")
    files, folders = store.children("")
    assert ([file.key for file in files], folders) == (["top"], ("a", "b", "b2"))
    files, folders = store.children("b")
    assert ([file.key for file in files], folders) == (["b/1", "b/2"], ("b/inner",))
    assert store.children("nowhere") == ((), ())


def test_a_version_changes_with_the_bytes(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mantis.store.local.YOUNG_SECONDS", -1.0)
    store.put("object", b"before")
    first = store.stat("object")
    assert first.version
    assert [entry.version for entry in store.children("")[0]] == [first.version]
    store.put("object", b"behind")
    assert store.stat("object").version != first.version


def test_when_an_object_was_written_is_known(store: ObjectStore) -> None:
    store.put("object", b"x")
    written = [store.stat("object").written, *(entry.written for entry in store.list(""))]
    assert written[0] > 0
    assert abs(time.time() - written[0]) < 60
    assert written == pytest.approx([written[0]] * len(written), abs=1.0)


def test_a_file_just_written_has_no_version(local_store: LocalStore) -> None:
    local_store.put("object", b"x")
    assert local_store.stat("object").version == ""


def test_delete(store: ObjectStore) -> None:
    store.put("gone", b"x")
    store.delete("gone")
    store.delete("gone")
    assert store.stat("gone") is None


def test_odd_names(store: ObjectStore) -> None:
    for key in ("with space/ä ö.json", "percent%20", "plus+and=equal"):
        store.put(key, key.encode())
        assert store.get(key) == key.encode()
        assert key_of(store, store.uri(key)) == key
    assert [entry.key for entry in store.list("with space")] == ["with space/ä ö.json"]


def test_a_key_is_named_by_itself_or_by_its_address(store: ObjectStore) -> None:
    assert key_of(store, "models/0123") == "models/0123"
    assert key_of(store, store.uri("models/0123") + "/") == "models/0123"
    with pytest.raises(ConfigError, match="is not an address of the store") as caught:
        key_of(store, "s3://elsewhere/models/0123")
    assert caught.value.remedy == "Name the store that holds it (--store)."


def test_the_remedy_names_the_key_of_an_object_that_moved_here(store: ObjectStore) -> None:
    store.put("models/0123/config.json", b"{}")
    with pytest.raises(ConfigError) as caught:
        key_of(store, "file:///former/models/place/models/0123")
    assert "name models/0123." in caught.value.remedy


def test_keys_below_a_url_are_found_without_opening_the_store(store: ObjectStore) -> None:
    assert key_below(store.url + "/", store.uri("models/0123")) == "models/0123"
    assert key_below(store.url, store.url + "2/models/0123") == store.url + "2/models/0123"
    for named in ("idefics2-8b", "tiny", "", "/elsewhere/model"):
        assert key_below(store.url, named) == named


def test_trees(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for index in range(40):
        path = source / f"folder-{index % 3}" / f"{index}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([index]) * index)
    assert len(upload_tree(store, "tree", source)) == 40
    download_tree(store, "tree", tmp_path / "target")
    for path in source.rglob("*.bin"):
        assert (tmp_path / "target" / path.relative_to(source)).read_bytes() == path.read_bytes()
    delete_tree(store, "tree")
    assert not list(store.list("tree"))


def test_a_reader_never_sees_half_an_object(store: ObjectStore) -> None:
    values = [bytes([value]) * 300_000 for value in range(6)]
    store.put("object", values[0])
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(store.get("object"))

    reader = threading.Thread(target=read)
    reader.start()
    for value in values * 5:
        store.put("object", value)
    stop.set()
    reader.join()
    assert seen
    assert seen <= set(values)


@pytest.mark.parametrize("kind", ["local_store", "minio_store", "cloud_minio", "cloud_google"])
def test_a_table_of_lance_lies_where_the_store_says(kind: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(kind)
    tables = [pa.record_batch([pa.array([number] * 3)], names=["number"]) for number in (1, 2)]
    for table in tables:
        assert write_table(store, "x/t.lance", table.schema, [table]) == 3
    assert open_table(store, "x/t.lance").take([2]).to_pylist() == [{"number": 2}]
    assert {entry.key.split("/")[1] for entry in store.list("x")} == {"t.lance"}


@pytest.mark.parametrize("kind", ["local_store", "minio_store", "cloud_memory", "cloud_minio"])
def test_a_large_file_comes_back_whole(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    store = request.getfixturevalue(kind)
    (tmp_path / "large").write_bytes(bytes(range(251)) * 50_000)
    store.put_file("large", tmp_path / "large")
    store.get_file("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    assert store.get_range("large", 12_000_000, 3) == bytes([12_000_000 % 251 + place for place in range(3)])


def test_a_cloud_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match="needs the package obstore") as caught:
        open_store("gs://bucket/x")
    assert "clouds" in caught.value.remedy


def test_the_signature_of_a_cloud_is_in_no_message(cloud_google: ObjectStore) -> None:
    for error in (ValueError("GET http://host/container/x?sv=1&sig=very-secret in 3 ms\n\nDebug: sig"), ValueError("")):
        with pytest.raises(StoreError) as caught, cloud_google._refusals("x"):  # type: ignore[attr-defined]
            raise error
        assert "sig" not in str(caught.value)


def test_a_cloud_without_an_account_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="store = 'az://container/x'") as caught:
        open_store("az://container/x")
    assert "AZURE_STORAGE_ACCOUNT_NAME" in caught.value.remedy


def test_a_key_cannot_leave_a_local_store(local_store: LocalStore) -> None:
    with pytest.raises(StoreError, match="leaves the store"):
        local_store.put("../outside", b"x")


def test_a_local_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = open_store((tmp_path / "file").as_uri())
    with pytest.raises(StoreError, match="--store"):
        store.put("key", b"x")


def test_wrong_credentials(minio_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY"):
        open_store(minio_store.url).get("key")


def test_a_missing_bucket_is_named(minio_store: ObjectStore) -> None:
    with pytest.raises(StoreError, match="no-such-bucket"):
        open_store("s3://no-such-bucket/x").put("key", b"x")


@pytest.mark.parametrize("place", ["exp#2", "q?x", "100%25", "100%", "~x", "sp ace/ä", "a&b=c;d", "[x]", "p%2Fq"])
@pytest.mark.parametrize("kind", ["local_store", "minio_store", "cloud_google"])
def test_every_character_of_an_address_means_itself(place: str, kind: str, request: pytest.FixtureRequest) -> None:
    """Two stores whose addresses differ have nothing in common, for our client and for Lance."""
    store = request.getfixturevalue(kind)
    inner = open_store(f"{store.root}/{place}" if isinstance(store, LocalStore) else f"{store.url}/{place}")
    inner.put("object", b"bytes")
    assert store.get(f"{place}/object") == b"bytes"
    assert open_store(inner.url).get("object") == b"bytes"
    assert key_below(inner.url, inner.uri("object")) == "object"
    table = pa.record_batch([pa.array([1, 2])], names=["number"])
    assert write_table(inner, "t.lance", table.schema, [table]) == 2
    assert open_table(open_store(inner.url), "t.lance").count_rows() == 2
    assert all(entry.key.startswith(f"{place}/") for entry in store.list(""))


def test_an_object_is_readable_for_other_users(local_store: LocalStore, tmp_path: Path) -> None:
    """Steps of one run may have different users, e.g. a pod's and a person's."""
    (tmp_path / "file").write_bytes(b"data")
    local_store.put("a/object", b"data")
    local_store.put_file("a/file", tmp_path / "file")
    for name in ("object", "file"):
        assert (tmp_path / "store" / "a" / name).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("status", [499, 500, 502, 503, 504])
def test_a_passing_failure_of_the_server_is_tried_again(
    status: int, json_server: Callable[[Answer], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[int, object]] = [(status, {}), (200, {"whole": True})]
    asked: list[str] = []

    def answer(method: str, path: str) -> tuple[int, object]:
        asked.append(f"{method} {path}")
        return answers[min(len(asked), len(answers)) - 1]

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{json_server(answer)}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "password")
    assert open_store("s3://bucket/prefix").get("object") == b'{"whole": true}'
    assert asked == ["GET /bucket/prefix/object"] * 2


ASKED_SECONDS = 60


class Starting(BaseHTTPRequestHandler):
    """Answers the first request as MinIO does while it starts, and the next ones with an object."""

    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        ready = self.requests > 1
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", "5" if ready else "0")
        if not ready:
            self.send_header("Retry-After", str(ASKED_SECONDS))
        self.end_headers()
        self.wfile.write(b"bytes" if ready else b"")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def test_a_server_that_starts_is_not_waited_for_as_long_as_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mantis.store.credentials.LONGEST_WAIT", 0.1)
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Starting)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "password")
        began = time.monotonic()
        assert open_store("s3://bucket/prefix").get("object") == b"bytes"
    assert Starting.requests == 2
    assert time.monotonic() - began < ASKED_SECONDS
