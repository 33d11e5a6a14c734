"""The store as a folder: what its files are, when they are durable, and what a fault says."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mantis.errors import NotFoundError, StoreError
from mantis.store.base import concurrently, delete_tree, download_tree, join, upload_tree
from mantis.store.local import LocalStore


def failing(code: int, only: Callable[[Any], bool] = lambda _: True) -> Callable[..., None]:
    """A call that fails with the error `code`, for the arguments that `only` names."""

    def fail(first: Any, *_: Any, **__: Any) -> None:
        if only(first):
            raise OSError(code, os.strerror(code), "the file")

    return fail


def test_objects_are_files_with_their_keys(local_store: LocalStore, tmp_path: Path) -> None:
    local_store.put("a/b", b"0123456789")
    (tmp_path / "source").write_bytes(b"of a file")
    local_store.put_file("a/c", tmp_path / "source")
    assert (local_store.root / "a" / "b").read_bytes() == b"0123456789"
    assert (local_store.get("a/b"), local_store.get("a/c")) == (b"0123456789", b"of a file")
    assert [local_store.get_range("a/b", *span) for span in ((0, 2), (3, 4), (8, 9), (20, 1), (2, 0))] == [
        b"01", b"3456", b"89", b"", b""
    ]  # fmt: skip
    local_store.get_file("a/b", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"0123456789"
    assert local_store.uri("a/b") == f"file://{tmp_path}/store/a/b" == f"{local_store.url}/a/b"
    assert local_store.lance_uri("a/b") == str(tmp_path / "store" / "a" / "b")
    assert local_store.lance_options() == {}
    for name in ("b", "c"):
        assert (local_store.root / "a" / name).stat().st_mode & 0o777 == 0o644
    local_store.delete("a/b")
    local_store.delete("a/b")
    assert local_store.stat("a/b") is None


def test_listings_are_sorted_and_leave_out_what_is_being_written(local_store: LocalStore) -> None:
    for key in ("runs/b/2", "runs/b/1", "runs/a.json", "runs/a/1", "top", "runs2/x"):
        local_store.put(key, b"x" * len(key))
    (local_store.root / "runs" / ".tmp-1").write_bytes(b"half")
    (local_store.root / ".tmp-folder").mkdir()
    found = list(local_store.list("runs"))
    assert [entry.key for entry in found] == ["runs/a.json", "runs/a/1", "runs/b/1", "runs/b/2"]
    assert [entry.size for entry in found] == [len(entry.key) for entry in found]
    files, folders = local_store.children("runs")
    assert ([file.key for file in files], folders) == (["runs/a.json"], ("runs/a", "runs/b"))
    files, folders = local_store.children("")
    assert ([file.key for file in files], folders) == (["top"], ("runs", "runs2"))
    assert local_store.children("nowhere") == local_store.children("top") == ((), ())
    assert list(local_store.list("nowhere")) == []


def test_a_version_is_there_once_a_file_is_old_enough(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put("object", b"bytes")
    status = (local_store.root / "object").stat()
    for age, version in (
        (1.5, ""),
        (2.0, f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"),
        (9.0, f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"),
    ):
        monkeypatch.setattr(time, "time", lambda age=age: status.st_ctime + age)
        entry = local_store.stat("object")
        assert (entry.version, entry.key, entry.size, entry.written) == (version, "object", 5, status.st_mtime)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a/.."])
def test_no_key_leaves_the_store(local_store: LocalStore, key: str) -> None:
    for use in (local_store.get, local_store.stat, local_store.delete, local_store.lance_uri):
        with pytest.raises(StoreError, match="leaves the store"):
            use(key)
    assert local_store.lance_uri("a/..b") == str(local_store.root / "a" / "..b")


def test_what_is_not_there_and_what_cannot_be_read_differ(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_store.put("folder/object", b"x")
    for key in ("missing", "folder", "folder/object/below"):
        with pytest.raises(NotFoundError, match=f"store/{key} does not exist"):
            local_store.get(key)
    monkeypatch.setattr(Path, "open", failing(errno.EACCES))
    with pytest.raises(StoreError, match=r"folder/object cannot be read: Permission denied\.") as caught:
        local_store.get("folder/object")
    assert not isinstance(caught.value, NotFoundError)


def test_a_write_that_fails_leaves_nothing_behind(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put("object", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(errno.ENOSPC))
        with pytest.raises(StoreError, match=r"store/object cannot be written: No space left on device\."):
            local_store.put("object", b"behind")
    assert [path.name for path in local_store.root.iterdir()] == ["object"]
    assert local_store.get("object") == b"before"


class Calls:
    """The order of the calls that make bytes and names durable."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self.made: list[str] = []
        fsync, replace = os.fsync, os.replace

        def short(path: Any) -> str:
            name = os.path.relpath(path, root)
            return "temporary" if ".tmp-" in name else name

        def synced(number: int) -> None:
            name = short(os.readlink(f"/proc/self/fd/{number}"))
            self.made.append(f"sync {name}")
            fsync(number)

        def replaced(source: Any, target: Any) -> None:
            self.made.append(f"rename {short(source)} {short(target)}")
            replace(source, target)

        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "replace", replaced)


def test_a_commit_makes_bytes_durable_then_names_then_itself(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a/b/object", "a/file", "elsewhere/x"):
        local_store.put(key, b"x")
    calls = Calls(monkeypatch, local_store.root)
    local_store.commit("a/COMMIT", b"whole", after=["a/b/object", "a/file", "a/missing"])
    assert sorted(calls.made[:2]) == ["sync a/b/object", "sync a/file"]
    assert calls.made[2:] == [
        "sync .", "sync a", "sync a/b", "sync temporary", "rename temporary a/COMMIT", "sync .", "sync a"
    ]  # fmt: skip
    assert local_store.get("a/COMMIT") == b"whole"


def test_nothing_else_waits_for_the_disk(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put("first", b"x")
    calls = Calls(monkeypatch, local_store.root)
    local_store.put("a/object", b"x")
    assert calls.made == ["rename temporary a/object"]


def test_a_new_store_s_own_folders_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, tmp_path)
    LocalStore(tmp_path / "new" / "store").put("object", b"x")
    assert calls.made == ["sync .", "sync new", "rename temporary new/store/object"]
    LocalStore(tmp_path / "new" / "store").put("object", b"x")
    assert calls.made[3:] == ["rename temporary new/store/object"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_a_folder_is_no_error(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    local_store.put("object", b"x")

    def is_folder(number: int) -> bool:
        return Path(f"/proc/self/fd/{number}").resolve().is_dir()

    monkeypatch.setattr(os, "fsync", failing(code, is_folder))
    local_store.commit("COMMIT", b"whole", after=["object"])
    assert local_store.get("COMMIT") == b"whole"
    monkeypatch.setattr(os, "fsync", failing(code, lambda number: not is_folder(number)))
    with pytest.raises(StoreError, match=r"COMMIT cannot be made durable: the file: "):
        local_store.commit("COMMIT", b"other", after=["object"])


def test_a_disk_that_fails_to_sync_says_so(local_store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local_store.put("object", b"x")
    closed: list[int] = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda number: (closed.append(number), close(number))[1])
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(StoreError, match=r"store/COMMIT cannot be made durable: the file: Input/output error\."):
        local_store.commit("COMMIT", b"whole", after=["object"])
    assert local_store.stat("COMMIT") is None
    assert closed, "the file that cannot be synced is closed"


def test_trees_are_whole_and_in_the_order_of_keys(local_store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for place, name in enumerate(("b/2", "b/10", "a", "c/d/e")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x" * place)
    found = upload_tree(local_store, "tree", source)
    assert [(entry.key, entry.size) for entry in found] == [
        ("tree/a", 2), ("tree/b/10", 1), ("tree/b/2", 0), ("tree/c/d/e", 3)
    ]  # fmt: skip
    local_store.put("tree2/x", b"x")
    paths = download_tree(local_store, "tree", tmp_path / "target")
    assert paths == [tmp_path / "target" / name for name in ("a", "b/10", "b/2", "c/d/e")]
    assert (tmp_path / "target" / "c/d/e").read_bytes() == b"xxx"
    delete_tree(local_store, "tree")
    assert [entry.key for entry in local_store.list("")] == ["tree2/x"]
    assert (join("", "a"), join("a/b", "c")) == ("a", "a/b/c")
    assert concurrently(lambda number: number * number, range(40)) == [number * number for number in range(40)]
