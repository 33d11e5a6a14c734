"""Reads images that are files beside the rows, on a disk or in a bucket."""

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components.data.sources.rejection import RowRejected
from components.data.sources.source import RowStream, clean
from components.data.sources.source_identity import Memory, hash_files
from mantis.errors import NotFoundError
from mantis.hashing import fingerprint
from mantis.store.base import TRANSFER_THREADS, ObjectStore, StoredObject, join
from mantis.store.local import LocalStore

LONGEST_KEY = 1024  # bytes, the limit of S3


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """Images below `folder` of a bucket."""

    store: ObjectStore
    folder: str

    def read(self, path: str, *, max_bytes: int) -> bytes:
        key = self._key(path)
        try:
            data = self.store.get_range(key, 0, max_bytes + 1)  # one request for any size
        except NotFoundError:
            raise RowRejected("image-missing", value=path) from None
        if len(data) > max_bytes:
            found = self.store.stat(key)
            raise RowRejected("image-bytes", value=f"{path}: {found.size if found else 0}", threshold=str(max_bytes))
        return data

    def fingerprint(self, memory: Memory, rows: RowStream) -> str:
        """Hash of every image that a row names. The memory keeps one hash for all of these files."""
        paths = sorted(_named(rows))
        files = self._find(paths)

        def compute() -> str:
            return fingerprint(list(zip(paths, hash_files(self.store, files), strict=True)))

        absent = fingerprint([path for path, file in zip(paths, files, strict=True) if file is None])
        return memory.recall(f"images, absent: {absent}", self.store, [file for file in files if file], compute)

    def _find(self, paths: list[str]) -> list[StoredObject | None]:
        """Look up the files of `paths` in one listing, since a request lists a thousand of them."""
        there = {entry.key: entry for entry in self.store.list(self.folder)}
        return [there.get(key) if key else None for key in map(self._key_or_none, paths)]

    def _key_or_none(self, path: str) -> str | None:
        try:
            return self._key(path)
        except RowRejected:
            return None  # the ledger names the reason when the row is prepared

    def _key(self, path: str) -> str:
        key = join(self.folder, clean(path))
        if len(key.encode()) > LONGEST_KEY:
            raise RowRejected("image-missing", value=path)
        return key


@dataclass(frozen=True, kw_only=True)
class LocalImages(FolderImages):
    """Images below a local folder. A link must not lead out of the folder; only regular files are opened."""

    store: LocalStore = field()
    _folders: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        real = self._locate(path)
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
            self._locate(path)
        except RowRejected:
            return None
        return self.store.stat(self._key(path))

    def _locate(self, path: str) -> str:
        folder, name = os.path.split(os.path.join(self._root, clean(path)))
        try:
            real = os.path.join(self._real(folder), name)
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(real)
                mode = os.stat(real).st_mode
        except (ValueError, OSError):
            raise RowRejected("image-missing", value=path) from None
        if not real.startswith(self._root + os.sep):
            raise RowRejected("image-outside", value=path)
        if not stat.S_ISREG(mode):
            raise RowRejected("image-missing", value=path)
        return real

    def _real(self, folder: str) -> str:
        """`folder` without links. The result is cached, since a set has far more images than folders."""
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return self._folders[folder]

    @cached_property
    def _root(self) -> str:
        return os.path.realpath(self.store.root / self.folder)


def _named(rows: RowStream) -> set[str]:
    """Every path that a row names. Images embedded in rows are not listed, since the rows' hash covers them."""
    named: set[str] = set()
    for row in rows.read(lambda _: True):
        images = row.get("images", row.get("image")) if isinstance(row, dict) else None
        named |= set(_paths(images if isinstance(images, list) else [images]))
    return named


def _paths(images: Iterable[Any]) -> Iterable[str]:
    for image in images:
        if isinstance(image, dict) and image.get("bytes") is None:
            image = image.get("path")
        if isinstance(image, str) and _is_text(image):
            yield image


def _is_text(value: str) -> bool:
    """Whether the text can be encoded as UTF-8. Text from broken input cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
