"""Reads images that are files beside the rows, on a disk or in a bucket."""

import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components.data.sources.images.image_names import BELOW, clean, plain_name
from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory, Named, hash_files
from mantis.errors import NotFoundError
from mantis.hashing import fingerprint
from mantis.store.base import TRANSFER_THREADS, ObjectStore, StoredObject, join
from mantis.store.local import LocalStore

LONGEST_KEY = 1024  # bytes, the limit of S3
# Files beside the rows that hold no image. If nothing else is there, the rows need not be read for the fingerprint.
NO_IMAGES = (
    *(".arrow", ".gitattributes", ".gz", ".json", ".jsonl", ".md", ".ndjson", ".parquet", ".tar", ".tgz", ".txt"),
    *(".yaml", ".yml", ".zip"),
)


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """Images below `folder` of a bucket."""

    store: ObjectStore
    folder: str
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        for name in self._names(path):
            key = join(self.folder, name)
            try:
                data = self.store.get_range(key, 0, max_bytes + 1)  # one request for any size
            except NotFoundError:
                continue
            if len(data) > max_bytes:
                found = self.store.stat(key)
                size = found.size if found else 0
                raise RowRejected("image-bytes", value=f"{path}: {size}", threshold=str(max_bytes))
            return data
        raise RowRejected("image-missing", value=path)

    def fingerprint(self, memory: Memory, named: Named) -> str:
        """Hash of every image in `named()`. The memory keeps one hash for all of these files."""
        paths = sorted(named()) if self.has_files else []
        files = self._find(paths)

        def compute() -> str:
            return fingerprint(list(zip(paths, hash_files(self.store, files), strict=True)))

        absent = fingerprint([path for path, file in zip(paths, files, strict=True) if file is None])
        return memory.recall(f"images, absent: {absent}", self.store, [file for file in files if file], compute)

    def _find(self, paths: list[str]) -> list[StoredObject | None]:
        """Look up the files of `paths` in one listing, since a request lists a thousand of them."""
        there = {entry.key: entry for entry in self.store.list(self.folder)}

        def find(path: str) -> StoredObject | None:
            try:
                return next(
                    (there[key] for name in self._names(path) if (key := join(self.folder, name)) in there), None
                )
            except RowRejected:
                return None  # the ledger names the reason when the row is prepared

        return [find(path) for path in paths]

    def _names(self, path: str) -> Iterator[str]:
        """The names that the file of `path` may have below the folder: its own first, then names of equal form.

        Raises:
            RowRejected: the path leads out of the folder, or is too long.
        """
        name = clean(path)
        if len(join(self.folder, name).encode()) > LONGEST_KEY:
            raise RowRejected("image-missing", value=path)
        if name.lower().endswith(NO_IMAGES):
            raise RowRejected("image-unknown", value=path, threshold=f"another suffix than {', '.join(NO_IMAGES)}")
        yield name
        plain = plain_name(name)
        if plain != name:
            yield clean(plain)
        with self._lock:
            other = self._others.get(plain)
        if other is not None:
            yield other

    @cached_property
    def has_files(self) -> bool:
        """Whether any file below the folder may hold an image."""
        return any(not name.lower().endswith(NO_IMAGES) for name in self._listed())

    @cached_property
    def _others(self) -> dict[str, str]:
        """The names below the folder that are not in plain form, by their plain form."""
        return {plain: name for name in self._listed() if (plain := plain_name(name)) != name}

    def _listed(self) -> Iterator[str]:
        prefix = f"{self.folder}/" if self.folder else ""
        return (entry.key.removeprefix(prefix) for entry in self.store.list(self.folder))


@dataclass(frozen=True, kw_only=True)
class LocalImages(FolderImages):
    """Images below a local folder. A link must not lead out of the folder; only regular files are opened."""

    store: LocalStore = field()
    _folders: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        real, _ = self._locate(path)
        try:
            size = os.stat(real).st_size
            if size > max_bytes:
                raise RowRejected("image-bytes", value=f"{path}: {size}", threshold=str(max_bytes))
            with open(real, "rb") as file:
                return file.read()
        except OSError:
            raise RowRejected("image-missing", value=path) from None

    def _find(self, paths: list[str]) -> list[StoredObject | None]:
        with ThreadPoolExecutor(TRANSFER_THREADS) as pool:
            return list(pool.map(self._stat, paths))

    def _stat(self, path: str) -> StoredObject | None:
        try:
            _, name = self._locate(path)
        except RowRejected:
            return None
        return self.store.stat(join(self.folder, name))

    def _locate(self, path: str) -> tuple[str, str]:
        """The file of `path`: its real path on the disk, and its name below the folder."""
        for name in self._names(path):
            real = self._real_file(path, name)
            if real is not None:
                return real, name
        raise RowRejected("image-missing", value=path)

    def _real_file(self, path: str, name: str) -> str | None:
        folder, base = os.path.split(os.path.join(self._root, name))
        try:
            real = os.path.join(self._real(folder), base)
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(real)
                mode = os.stat(real).st_mode
        except (ValueError, OSError):
            return None
        if not real.startswith(self._root + os.sep):
            raise RowRejected("image-outside", value=path, threshold=BELOW)
        return real if stat.S_ISREG(mode) else None

    def _listed(self) -> Iterator[str]:
        for folder, _, files in os.walk(self._root):
            for file in files:
                yield os.path.relpath(os.path.join(folder, file), self._root)

    def _real(self, folder: str) -> str:
        """`folder` without links. The result is cached, since a set has far more images than folders."""
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return self._folders[folder]

    @cached_property
    def _root(self) -> str:
        return os.path.realpath(self.store.root / self.folder)
