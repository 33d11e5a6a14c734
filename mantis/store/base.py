"""The interface of every object store, and helpers that work with any of them.

opening.py opens a store. One contract test holds each implementation to this interface.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

TRANSFER_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object of a store.

    Args:
        key: key below the store's root.
        size: bytes.
        version: changes with the bytes; empty if the store could not tell a later change from this state.
        written: time of the last write in seconds since 1970, by the clock of the store.
        sha256: hex hash of the bytes, where the store knows it without reading them; else empty.
    """

    key: str
    size: int
    version: str = ""
    written: float = 0.0
    sha256: str = ""


class ObjectStore(Protocol):
    """Keys are relative paths with `/`. Writes are atomic: a reader sees the whole object or none.

    A power cut may leave a local object empty, or absent, that `put` or `put_file` wrote. `commit` excludes both.

    Every method raises StoreError when the store is away or refuses, NotFoundError where a key is missing.
    """

    url: str

    @property
    def place(self) -> str:
        """The URL with the server or account, and without links of the file system: it names one store on this machine.

        Locks use it. Nothing stores it, because another machine may reach the same server by another address.
        """
        ...

    def put(self, key: str, data: bytes) -> None: ...

    def put_file(self, key: str, path: Path) -> None: ...

    def commit(self, key: str, data: bytes, *, after: Sequence[str]) -> None:
        """Put an object whose presence says that the objects at the keys `after` are whole.

        It never appears before they survive a power cut, whatever process wrote them. On return it survives one, too.
        No store checks that the objects are there.
        """
        ...

    def get(self, key: str) -> bytes: ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes `start` to `start + length`, fewer at the object's end, none beyond it."""
        ...

    def get_file(self, key: str, path: Path) -> None: ...

    def stat(self, key: str) -> StoredObject | None: ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with `prefix + "/"`, in the order of keys."""
        ...

    def children(self, prefix: str) -> tuple[tuple[StoredObject, ...], tuple[str, ...]]:
        """What lies directly below `prefix` (empty: the root): the objects, and the keys of the folders; both sorted.

        Nothing there gives two empty tuples.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete one object; one that is not there is no error."""
        ...

    def uri(self, key: str) -> str: ...

    def lance_uri(self, key: str) -> str:
        """Address of a Lance dataset at `key`, for `lance.dataset(uri, storage_options=lance_options())`."""
        ...

    def lance_options(self) -> dict[str, str]: ...


def join(prefix: str, name: str) -> str:
    """The key of `name` below `prefix`, which may be empty."""
    return f"{prefix}/{name}" if prefix else name


def upload_tree(store: ObjectStore, prefix: str, folder: Path) -> list[StoredObject]:
    """Put every file below `folder` under `prefix`, concurrently. Returns the objects in the order of keys."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    def put(path: Path) -> StoredObject:
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        store.put_file(key, path)
        return StoredObject(key=key, size=path.stat().st_size)

    return concurrently(put, files)


def download_tree(store: ObjectStore, prefix: str, folder: Path) -> list[Path]:
    """Get every object under `prefix` into `folder`, concurrently."""

    def get(entry: StoredObject) -> Path:
        path = folder / entry.key.removeprefix(prefix + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(entry.key, path)
        return path

    return concurrently(get, list(store.list(prefix)))


def delete_tree(store: ObjectStore, prefix: str) -> None:
    """Delete every object under `prefix`."""
    concurrently(lambda entry: store.delete(entry.key), list(store.list(prefix)))


def concurrently(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` over `items` on TRANSFER_THREADS threads; results in the order of items."""
    with ThreadPoolExecutor(TRANSFER_THREADS) as pool:
        return list(pool.map(work, items))
