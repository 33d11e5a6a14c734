"""Content hashes of source files, each computed once and remembered in the run's store.

The bytes of a source identify it. So the same files give the same datasets from a disk and from a bucket. An ETag would
not do, because it depends on the upload.

A hash is kept under the state of its files: addresses, sizes and versions (ETags, or times of change and inodes). So a
start need not read hundreds of gigabytes again. The state only finds a hash; it never stands for one.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mantis.artifacts.layout import source_identity_key
from mantis.artifacts.manifest import hash_object
from mantis.hashing import fingerprint
from mantis.progress import Progress
from mantis.store.base import ObjectStore, StoredObject

HASH_THREADS = 8
HASHED_AT_ONCE = 4096  # files


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Results that were computed from files. `store` keeps each under the hash of the state of its files."""

    store: ObjectStore

    def recall(self, what: str, source: ObjectStore, files: Sequence[StoredObject], compute: Callable[[], str]) -> str:
        """`compute()`, or what it gave before for the same `what` of files in the same state."""
        if not all(file.version for file in files):
            return compute()
        state = fingerprint([what, [[source.uri(file.key), file.size, file.version] for file in files]])
        key = source_identity_key(state)
        if self.store.stat(key) is not None:
            return self.store.get(key).decode()
        found = compute()
        self.store.put(key, found.encode())
        return found


def hash_files(store: ObjectStore, files: Iterable[StoredObject | None]) -> list[str]:
    """SHA-256 of each file, read in blocks by several threads; `none` for one that is not there."""
    wanted = list(files)
    progress = Progress(label="hash source", total=len(wanted), unit="files")
    hashes: list[str] = []

    def hashed(file: StoredObject | None) -> str:
        return "none" if file is None else hash_object(store, file.key, file.size)

    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for start in range(0, len(wanted), HASHED_AT_ONCE):
            hashes += pool.map(hashed, wanted[start : start + HASHED_AT_ONCE])
            progress.advance(len(hashes) - start)
    return hashes
