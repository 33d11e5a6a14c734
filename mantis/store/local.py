"""The store as a folder."""

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from mantis.errors import NotFoundError, StoreError
from mantis.store.base import StoredObject, concurrently, join

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)
YOUNG_SECONDS = 2.0  # a file written twice within its clock's tick looks unchanged; git calls such files racy


class LocalStore:
    """Objects are files below `root`; a write goes to a temporary file that is renamed into place.

    A rename does not wait for the file's bytes, and nothing waits for either. `commit` makes the bytes of all files
    durable first, then their names, then its own bytes and name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = self.root.as_uri()
        self._folder = str(self.root)

    @property
    def place(self) -> str:
        return self.root.resolve().as_uri()

    def put(self, key: str, data: bytes) -> None:
        self._write(key, lambda file: file.write(data))

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._write(key, lambda file: shutil.copyfileobj(source, file, 1 << 20))

    def commit(self, key: str, data: bytes, *, after: Sequence[str]) -> None:
        def fill(file: IO[bytes]) -> None:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

        paths = [path for each in after if (path := self._path(each)).exists()]
        try:
            concurrently(_sync, paths)
            self._sync_folders(paths)
            self._write(key, fill)
            self._sync_folders([self._path(key)])
        except OSError as error:
            raise StoreError(
                f"{self.uri(key)} cannot be made durable: {error.filename or 'a file'}: {error.strerror}.",
                remedy="Check the disk, then run the step again.",
            ) from None

    def get(self, key: str) -> bytes:
        with self._open(key) as file:
            return file.read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._open(key) as file:
            file.seek(start)
            return file.read(length)

    def get_file(self, key: str, path: Path) -> None:
        with self._open(key) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def stat(self, key: str) -> StoredObject | None:
        try:
            status = os.stat(self._place(key))
        except ValueError:  # no file has this name
            return None
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise
        return _entry(key, status) if stat.S_ISREG(status.st_mode) else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        base = self._path(prefix)
        found = (path for path in base.rglob("*") if path.is_file() and not path.name.startswith(".tmp-"))
        yield from _entries(sorted((path.relative_to(self.root).as_posix(), path) for path in found))

    def children(self, prefix: str) -> tuple[tuple[StoredObject, ...], tuple[str, ...]]:
        base = self._path(prefix)
        if not base.is_dir():
            return (), ()
        found = sorted((join(prefix, path.name), path) for path in base.iterdir() if not path.name.startswith(".tmp-"))
        files = tuple(_entries([(key, path) for key, path in found if path.is_file()]))
        return files, tuple(key for key, path in found if path.is_dir())

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def lance_uri(self, key: str) -> str:
        return str(self._path(key))

    def lance_options(self) -> dict[str, str]:
        return {}

    def _path(self, key: str) -> Path:
        return Path(self._place(key))

    def _place(self, key: str) -> str:
        """The path of `key` as text: a Path costs more than a look at its file, and a source may have millions."""
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"The key {key!r} leaves the store {self.url}.", remedy="Keys are relative, without `..`.")
        return f"{self._folder}/{key}"

    def _open(self, key: str) -> IO[bytes]:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFoundError(f"{self.uri(key)} does not exist.", remedy="Run the step that makes it.") from None
        except OSError as error:
            raise StoreError(
                f"{self.uri(key)} cannot be read: {error.strerror}.", remedy="Check the folder's rights."
            ) from None

    def _write(self, key: str, fill: Callable[[IO[bytes]], object]) -> None:
        path = self._path(key)
        temporary: Path | None = None
        try:
            self._make_root()
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
                temporary = Path(file.name)
                fill(file)
            temporary.chmod(0o644)
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise StoreError(
                f"{self.uri(key)} cannot be written: {error.strerror}.",
                remedy="Free space or choose another place with --store, e.g. --store file:///tmp/mantis.",
            ) from None

    def _make_root(self) -> None:
        """Make the store's own folder, and those above it, durable when they are new."""
        if self.root.is_dir():
            return
        new = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in reversed(new):
            _sync(folder.parent)

    def _sync_folders(self, paths: Iterable[Path]) -> None:
        """Make the names of these files durable, and those of all folders between them and the store's."""
        folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(self.root)}
        for folder in sorted(folders):
            _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder: there a name is durable once its rename returns.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _entries(found: Sequence[tuple[str, Path]]) -> Iterator[StoredObject]:
    """The objects at these keys and paths, less those that another process deletes during the listing."""
    for key, path in found:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        yield _entry(key, status)


def _entry(key: str, status: os.stat_result) -> StoredObject:
    young = time.time() - status.st_ctime < YOUNG_SECONDS
    # The inode and its own time of change too: they see a replaced file whose time of writing was set back.
    version = "" if young else f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
    return StoredObject(key=key, size=status.st_size, version=version, written=status.st_mtime)
