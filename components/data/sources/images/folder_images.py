"""Reads images that are files beside the rows, on a disk or in a bucket."""

import os
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components.data.sources.images.image_names import BELOW, clean, leads_up, plain_name
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import LONGEST_NAME
from components.data.sources.source_identity import Memory, NamedPaths, hash_files
from mantis.errors import NotFoundError
from mantis.hashing import fingerprint
from mantis.store.base import TRANSFER_THREADS, ObjectStore, StoredObject, join
from mantis.store.local import LocalStore

STATED_AT_ONCE = 256  # files; a task of a thread costs more than a look at one file of a local disk
# Files beside the rows that hold no image. If nothing else is there, the rows need not be read for the fingerprint.
NO_IMAGES = (
    *(".arrow", ".gitattributes", ".gz", ".json", ".jsonl", ".md", ".ndjson", ".parquet", ".tar", ".tgz", ".txt"),
    *(".yaml", ".yml", ".zip"),
)


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """Images of a bucket, named by paths that are relative to `folder`. A path may lead to any folder of the source.

    `store` is the source. Nothing outside of it is read.
    """

    store: ObjectStore
    folder: str
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _others: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        for key in self._keys(path):
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

    def fingerprint(self, memory: Memory, named: NamedPaths) -> str:
        """Hash of every image that the rows name."""
        return self.hash_of(memory, self.readable(named))

    def readable(self, named: NamedPaths) -> frozenset[str]:
        """The named paths that may be files. A pass over the rows is saved where there can be none."""
        if self.has_files:
            return named.every()
        return named.upward() if self._has_files_above else frozenset()

    def hash_of(self, memory: Memory, named: Iterable[str]) -> str:
        """Hash of the images at these paths. The memory keeps one hash for all of these files."""
        paths = sorted(named)
        files = self._find(paths)

        def compute() -> str:
            return fingerprint(list(zip(paths, hash_files(self.store, files), strict=True)))

        absent = fingerprint([path for path, file in zip(paths, files, strict=True) if file is None])
        return memory.recall(f"images, absent: {absent}", self.store, [file for file in files if file], compute)

    def _find(self, paths: list[str]) -> list[StoredObject | None]:
        """Look up the files of `paths` in one listing, since a request lists a thousand of them."""
        folder = "" if any(map(leads_up, paths)) else self.folder
        there = {entry.key: entry for entry in self.store.list(folder)}

        def find(path: str) -> StoredObject | None:
            try:
                return next((there[key] for key in self._keys(path) if key in there), None)
            except RowRejected:
                return None  # the ledger names the reason when the row is prepared

        return [find(path) for path in paths]

    def _keys(self, path: str) -> Iterator[str]:
        """The keys that the file of `path` may have in the source: its own first, then those of equal form.

        Raises:
            RowRejected: the path leads out of the source, or is too long.
        """
        key = clean(path, self.folder)
        if len(key.encode()) > LONGEST_NAME:
            raise RowRejected("image-missing", value=path)
        if key.lower().endswith(NO_IMAGES):
            raise RowRejected("image-unknown", value=path, threshold=f"another suffix than {', '.join(NO_IMAGES)}")
        if ".." not in key.replace("\\", "/").split("/"):  # MinIO refuses such a key
            yield key
        plain = clean(plain_name(path), self.folder)
        if plain != key:
            yield plain
        other = self._others_below("" if leads_up(path) else self.folder).get(plain_name(plain))
        if other is not None:
            yield other

    @property
    def may_have_files(self) -> bool:
        """Whether any file that the rows can name may hold an image."""
        return self.has_files or self._has_files_above

    @cached_property
    def has_files(self) -> bool:
        """Whether any file below the folder may hold an image."""
        return self._has_files(self.folder)

    @cached_property
    def _has_files_above(self) -> bool:
        """Whether any file of the source may hold an image."""
        return bool(self.folder) and self._has_files("")

    def _has_files(self, folder: str) -> bool:
        return any(not key.lower().endswith(NO_IMAGES) for key in self._listed(folder))

    def _others_below(self, folder: str) -> dict[str, str]:
        """The keys below a folder that are not in plain form, by their plain form."""
        with self._lock:
            if folder not in self._others:
                listed = self._listed(folder)
                self._others[folder] = {plain: key for key in listed if (plain := plain_name(key)) != key}
            return self._others[folder]

    def _listed(self, folder: str) -> Iterator[str]:
        return (entry.key for entry in self.store.list(folder))


@dataclass(frozen=True, kw_only=True)
class LocalImages(FolderImages):
    """Images of a local source. A link must not lead out of the source; only regular files are opened."""

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
        parts = [paths[start : start + STATED_AT_ONCE] for start in range(0, len(paths), STATED_AT_ONCE)]
        with ThreadPoolExecutor(TRANSFER_THREADS) as pool:
            return [file for files in pool.map(lambda part: list(map(self._stat, part)), parts) for file in files]

    def _stat(self, path: str) -> StoredObject | None:
        try:
            _, key = self._locate(path)
        except RowRejected:
            return None
        return self.store.stat(key)

    def _locate(self, path: str) -> tuple[str, str]:
        """The file of `path`: its real path on the disk, and its key."""
        for key in self._keys(path):
            real = self._real_file(path, key)
            if real is not None:
                return real, key
        raise RowRejected("image-missing", value=path)

    def _real_file(self, path: str, key: str) -> str | None:
        folder, base = os.path.split(os.path.join(self._roots[0], key))
        try:
            real = os.path.join(self._real(folder), base)
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(real)
                mode = os.stat(real).st_mode
        except (ValueError, OSError):
            return None
        if not real.startswith(tuple(f"{root.rstrip(os.sep)}{os.sep}" for root in self._roots)):
            raise RowRejected("image-outside", value=path, threshold=BELOW)
        return real if stat.S_ISREG(mode) else None

    def _listed(self, folder: str) -> Iterator[str]:
        top = self._real(os.path.join(self._roots[0], folder))
        for inner, _, files in os.walk(top):
            for file in files:
                yield join(folder, os.path.relpath(os.path.join(inner, file), top))

    def _real(self, folder: str) -> str:
        """`folder` without links. The result is cached, since a set has far more images than folders."""
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return self._folders[folder]

    @cached_property
    def _roots(self) -> tuple[str, str]:
        """The source, and the folder of the rows, which may be a link to elsewhere."""
        return os.path.realpath(self.store.root), os.path.realpath(self.store.root / self.folder)
