"""Computes content hashes of source files, and caches them in the run's store.

The bytes of its files identify a source. So the same files give the same dataset from a disk and from a bucket. An ETag
cannot identify them, since it depends on how an object was uploaded.

To read hundreds of gigabytes on every start would cost more than to prepare them. So the store keeps each hash under
the state of its files: addresses, sizes and versions (ETags, or times of change and inodes). The state only finds the
hash again. It never enters a fingerprint.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from mantis.artifacts.layout import source_identity_key
from mantis.artifacts.manifest import hash_object
from mantis.hashing import fingerprint
from mantis.progress import Progress
from mantis.store.base import ObjectStore, StoredObject

HASH_THREADS = 8
HASHED_AT_ONCE = 4096  # files


@dataclass(frozen=True, kw_only=True)
class NamedPaths:
    """The paths that the rows name: `every`, or those that lead out of the folder of the rows, `upward`.

    To know them costs a pass over the rows, once: the memory keeps them. `state` holds what decides them.
    """

    state: tuple[object, ...]
    every: Callable[[], frozenset[str]]
    upward: Callable[[], frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Cache of content hashes in `store`, keyed by the hash of the files' state."""

    store: ObjectStore

    def recall(self, what: str, source: ObjectStore, files: Sequence[StoredObject], compute: Callable[[], str]) -> str:
        """Return the cached hash, or compute and cache it. The key is `what` and the state of `files`."""
        if not all(file.version for file in files):
            return compute()
        return self.remember([what, [[source.uri(file.key), file.size, file.version] for file in files]], compute)

    def remember(self, state: Sequence[object], compute: Callable[[], str]) -> str:
        """Return the cached text for `state`, or compute and cache it."""
        key = source_identity_key(fingerprint(state))
        if self.store.stat(key) is not None:
            return self.store.get(key).decode()
        found = compute()
        self.store.put(key, found.encode())
        return found

    def remember_names(self, state: Sequence[object], compute: Callable[[], Iterable[str]]) -> list[str]:
        """Return the cached names for `state`, sorted, or compute and cache them. Millions take a few megabytes."""
        key = source_identity_key(fingerprint(state))
        if self.store.stat(key) is not None:
            names: list[str] = json.loads(zlib.decompress(self.store.get(key)))
            return names
        found = sorted(compute())
        self.store.put(key, zlib.compress(json.dumps(found).encode(), 1))
        return found

    def hash_each(self, source: ObjectStore, files: Iterable[StoredObject]) -> list[str]:
        """SHA-256 of each file, cached file by file: a changed file leaves the hashes of the others valid."""
        return [self.recall("sha256", source, [file], partial(_hash_file, source, file)) for file in files]


def _hash_file(store: ObjectStore, file: StoredObject) -> str:
    return hash_files(store, [file])[0]


def hash_files(store: ObjectStore, files: Iterable[StoredObject | None]) -> list[str]:
    """SHA-256 of each file, as hex text; `none` for a file that does not exist. Several threads read in blocks."""
    wanted = list(files)
    progress = Progress(label="hash source", total=len(wanted), unit="files")
    hashes: list[str] = []

    def hashed(file: StoredObject | None) -> str:
        return "none" if file is None else file.sha256 or hash_object(store, file.key, file.size)

    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for start in range(0, len(wanted), HASHED_AT_ONCE):
            hashes += pool.map(hashed, wanted[start : start + HASHED_AT_ONCE])
            progress.advance(len(hashes) - start)
    return hashes
