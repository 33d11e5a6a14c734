"""Read a checkpoint's bytes from files of a folder, or from objects of the store by range."""

import os
from pathlib import Path
from typing import Protocol

from mantis.errors import ConversionError
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore

TRUNCATED = "Copy the checkpoint again, or convert an earlier step."


class ByteSource(Protocol):
    """Bytes that can be read at any position, from several threads; `name` appears in errors, `size` is in bytes."""

    name: str
    size: int

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the bytes from position `start` on.

        Raises:
            ConversionError: the source ends before `target` is full.
        """
        ...


class FileSource:
    """A local file, read by position."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read_into(self, start: int, target: memoryview) -> None:
        done = 0
        while done < len(target):
            count = os.preadv(self._descriptor, [target[done:]], start + done)
            if count == 0:
                raise short(self, start + len(target))
            done += count


class StoreSource:
    """An object of a store, read by range."""

    def __init__(self, store: ObjectStore, key: str, size: int) -> None:
        self.name, self.size = store.uri(key), size
        self._store, self._key = store, key

    def read(self, start: int, length: int) -> bytes:
        """Read `length` bytes from position `start` on, in one request.

        Raises:
            ConversionError: the object ends before.
        """
        found = self._store.get_range(self._key, start, length)
        if len(found) != length:
            raise short(self, start + length)
        return found

    def read_into(self, start: int, target: memoryview) -> None:
        if target:
            target[:] = self.read(start, len(target))


def short(source: ByteSource, needed: int) -> ConversionError:
    """Build the error of a source that ends too early."""
    return ConversionError(f"{source.name} has {source.size} bytes, but {needed} are needed.", remedy=TRUNCATED)


def folder_sources(folder: Path) -> dict[str, ByteSource]:
    """Open the files of a local checkpoint folder, by name."""
    return {path.name: FileSource(path) for path in sorted(folder.iterdir()) if path.is_file()}


def store_sources(store: ObjectStore, prefix: str) -> dict[str, ByteSource]:
    """Open the objects under `prefix`, by name. A local store gives files, other stores give ranges."""
    entries = {entry.key.removeprefix(prefix + "/"): entry for entry in store.list(prefix)}
    if isinstance(store, LocalStore):
        return {name: FileSource(store.root / entry.key) for name, entry in entries.items()}
    return {name: StoreSource(store, entry.key, entry.size) for name, entry in entries.items()}
