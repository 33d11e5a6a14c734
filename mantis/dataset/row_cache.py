"""Rows of datasets kept on a local disk, so that a second epoch, or another run, does not ask the store again.

A file per row, shared by all processes of a node. Where the cache outgrows its size, rows used longest ago go first.
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
KEPT_AFTER_EVICTION = 0.9  # of the limit: evicting lists the whole folder, so it should not happen for every row
LIMIT_SHARE_UNSEEN = 0.02  # of the limit that this process writes before it looks at what others have written


def cache_folder() -> Path:
    """MANTIS_CACHE, or `mantis` in the user's cache folder."""
    named = os.environ.get("MANTIS_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mantis"


class RowCache:
    """At most `limit` bytes of rows below `folder`; a limit of 0 keeps none."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._unseen = limit  # bytes written since the folder was last listed; at first nothing is known of it
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def rows(
        self, table: str, numbers: Sequence[int], read: Callable[[list[int]], list[dict[str, Any]]]
    ) -> dict[int, dict[str, Any]]:
        """Rows `numbers` of the table at the address `table`; `read` gives those that are not here, in order."""
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
        except (pa.ArrowInvalid, OSError):  # damaged: the store has it whole
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
        temporary.replace(path)  # whole or not at all, also when this process is killed

    def _evict(self) -> None:
        with self._lock:
            if self._unseen < self._limit * LIMIT_SHARE_UNSEEN:
                return
            self._unseen = 0
            files = sorted(_files(self._folder / "rows"), reverse=True)  # used last comes first
        held = 0
        total = sum(size for _, size, _ in files)
        if total <= self._limit:
            return
        for _, size, path in files:
            held += size
            if held > self._limit * KEPT_AFTER_EVICTION:
                Path(path).unlink(missing_ok=True)  # another process may have been first


def _files(folder: Path) -> list[tuple[float, int, str]]:
    """Time of last use, size and path of every cached row; one that another process deletes meanwhile is left out."""
    found = []
    for table in os.scandir(folder) if folder.exists() else ():
        for file in os.scandir(table.path):
            try:
                state = file.stat()
            except FileNotFoundError:
                continue
            found.append((state.st_mtime, state.st_size, file.path))
    return found
