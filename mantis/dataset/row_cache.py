"""Keep rows of datasets on a local disk, so that another epoch or run does not read them from the store.

Each row is a file, which all processes of a node share. When the cache exceeds its limit, it deletes the least recently
used rows.
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mantis.hashing import fingerprint

GIGABYTE = 10**9
KEPT_AFTER_EVICTION = 0.9  # share of the limit: evicting lists the whole folder, so it must not happen for every row
LIMIT_SHARE_UNSEEN = 0.02  # share of the limit that a process writes before it counts the rows of other processes


def cache_folder() -> Path:
    """Return MANTIS_CACHE, or `mantis` in the user's cache folder."""
    named = os.environ.get("MANTIS_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mantis"


class RowCache:
    """At most `limit` bytes of rows below `folder`; a limit of 0 disables the cache."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._unseen = limit  # bytes written since the folder was last listed; the first write lists it
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def rows(
        self, table: str, numbers: Sequence[int], read: Callable[[list[int]], list[dict[str, Any]]]
    ) -> dict[int, dict[str, Any]]:
        """Return rows `numbers` of the table at the address `table`. `read` fetches the missing ones, in order."""
        if not self._limit:
            return dict(zip(numbers, read(list(numbers)), strict=True))
        folder = self._folder / "rows" / fingerprint(table)
        found = {number: self._load(folder / str(number)) for number in numbers}
        missing = [number for number, row in found.items() if row is None]
        fresh = dict(zip(missing, read(missing), strict=True)) if missing else {}
        for number, row in fresh.items():
            self._keep(folder / str(number), row)
        self._evict()
        return {number: kept if (kept := found[number]) is not None else fresh[number] for number in numbers}

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as batches:
                row: dict[str, Any] = batches.get_batch(0).to_pylist()[0]
            os.utime(path)
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, OSError):  # damaged: the row is read from the store again
            path.unlink(missing_ok=True)
            return None
        return row

    def _keep(self, path: Path, row: dict[str, Any]) -> None:
        batch = pa.RecordBatch.from_pylist([row])
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(self._numbers)}")
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        with self._lock:
            self._unseen += temporary.stat().st_size
        temporary.replace(path)  # atomic, even if this process is killed

    def _evict(self) -> None:
        with self._lock:
            if self._unseen < self._limit * LIMIT_SHARE_UNSEEN:
                return
            self._unseen = 0
            files = sorted(_files(self._folder / "rows"), reverse=True)  # the most recently used file comes first
        held = 0
        total = sum(size for _, size, _ in files)
        if total <= self._limit:
            return
        for _, size, path in files:
            held += size
            if held > self._limit * KEPT_AFTER_EVICTION:
                Path(path).unlink(missing_ok=True)  # another process may have deleted it


def _files(folder: Path) -> list[tuple[float, int, str]]:
    """List time of last use, size and path of every cached row, without rows that another process deletes meanwhile."""
    found = []
    for table in os.scandir(folder) if folder.exists() else ():
        for file in os.scandir(table.path):
            try:
                state = file.stat()
            except FileNotFoundError:
                continue
            found.append((state.st_mtime, state.st_size, file.path))
    return found
