"""Download files of the hub into the store: several at once, with every byte hashed, all from one revision.

huggingface_hub transfers the bytes. It checks the size of a file alone, so its hash is checked here. It continues a
broken connection within its last 10 MB. It does not continue a file that an earlier command left incomplete.
"""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from mantis.artifacts.manifest import File, hash_object
from mantis.errors import InputError, IntegrityError, StoreError
from mantis.hashing import fingerprint
from mantis.hub.client import HubFile, Repository, endpoint, hub_errors, newest_commit
from mantis.processes import one_at_a_time
from mantis.progress import Progress
from mantis.schema_versions import Form, versioned, without_version
from mantis.store.base import ObjectStore, concurrently
from mantis.store.local import LocalStore

logger = logging.getLogger(__name__)

PIN = "fetch.json"  # repository and revision of an unfinished download
SPARE = 1 << 30  # bytes of disk that stay free
FILES_AT_ONCE = 8  # as many as huggingface_hub's own snapshot_download
BLOCK = 1 << 20


def pinned_commit(store: ObjectStore, prefix: str, repository: Repository, revision: str, default: str) -> str:
    """Choose the commit to fetch, and record it before the first byte.

    The order is: `revision`, the commit of an unfinished download, the current commit of `default`.
    """
    pin = f"{prefix}/{PIN}"
    if not revision and store.stat(pin) is not None:
        begun: dict[str, str] = without_version(Form.FETCH, json.loads(store.get(pin)), store.uri(pin))
        return begun["revision"]
    commit = newest_commit(repository, revision or default)
    content = versioned(Form.FETCH, {"repository": repository.name, "revision": commit})
    store.put(pin, json.dumps(content).encode())
    return commit


def fetch_files(
    store: ObjectStore, prefix: str, repository: Repository, commit: str, wanted: Mapping[str, HubFile], *, label: str
) -> tuple[File, ...]:
    """Fetch the missing files of `wanted` to `prefix`, and describe all of them.

    If another command fetches the same files on this machine, this one waits for its end.

    Args:
        store: the store that takes the files.
        prefix: the folder of the store.
        repository: the repository of the hub.
        commit: its commit.
        wanted: from the name of each file below `prefix` to the file of the hub.
        label: names the files in the progress.

    Raises:
        InputError: the hub cannot be reached, or denies access.
        StoreError: the disk has too little space.
        IntegrityError: a file's bytes differ from the hash that the hub gives.
    """
    staging = _staging_folder(store, label, commit)

    def tell() -> None:
        logger.info("Another command fetches %s: this one waits for its end", label)

    with one_at_a_time(f"{fingerprint(str(staging.resolve()))}.fetch", tell):
        there = concurrently(lambda name: _is_there(store, f"{prefix}/{name}", wanted[name]), wanted)
        missing = {name: remote for (name, remote), found in zip(wanted.items(), there, strict=True) if not found}
        staging.mkdir(parents=True, exist_ok=True)
        _check_disk(store, staging, list(missing.values()))
        transfer = _Transfer(repository, commit, staging, label, sum(remote.size for remote in missing.values()))

        def fetch(name: str) -> None:
            path = transfer.download(missing[name])
            store.put_file(f"{prefix}/{name}", path)
            path.unlink()

        transfer.run(fetch, list(missing))
        shutil.rmtree(staging, ignore_errors=True)
    return tuple(_described(store, prefix, name, remote) for name, remote in wanted.items())


def _described(store: ObjectStore, prefix: str, name: str, remote: HubFile) -> File:
    sha256 = remote.sha256 or hash_object(store, f"{prefix}/{name}", remote.size)
    return File(name=name, size=remote.size, sha256=sha256)


def _is_there(store: ObjectStore, key: str, remote: HubFile) -> bool:
    entry = store.stat(key)
    if entry is None or entry.size != remote.size:
        return False
    if remote.sha256:
        return hash_object(store, key, entry.size) == remote.sha256
    return remote.holds("", _git_hash([store.get(key)], entry.size))


def _staging_folder(store: ObjectStore, label: str, commit: str) -> Path:
    """Return the folder of partial files for this and later attempts: beside a local store, else in the cache.

    All stores that are not local share the one in the cache.
    """
    base = store.root if isinstance(store, LocalStore) else Path.home() / ".cache" / "mantis"
    return base / ".fetching" / f"{label}-{commit[:12]}"


def _check_disk(store: ObjectStore, staging: Path, missing: Sequence[HubFile]) -> None:
    """Refuse before the first byte if the disk is too small.

    Staging holds FILES_AT_ONCE files. A local store on the same disk holds all files.
    """
    sizes = sorted((remote.size for remote in missing), reverse=True)
    needed = sum(sizes[:FILES_AT_ONCE]) + (sum(sizes) if isinstance(store, LocalStore) else 0)
    staged = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    free = shutil.disk_usage(staging).free
    if missing and free + staged < needed + SPARE:
        raise StoreError(
            f"{staging} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB and a reserve of 1 GB are needed.",
            remedy="Free space, or set --store to another disk.",
        )


class _Transfer:
    """Files of one commit on their way into the folder `staging`, by huggingface_hub."""

    def __init__(self, repository: Repository, commit: str, staging: Path, label: str, total: int) -> None:
        self._repository, self._commit, self._staging = repository, commit, staging
        self._progress = Progress(label=f"fetch {label}", total=total, unit="bytes")
        self._lock, self._stop = threading.Lock(), threading.Event()

    def run(self, work: Callable[[str], None], names: Sequence[str]) -> None:
        """`work` on each name, FILES_AT_ONCE at a time. The first error, or Ctrl-C, stops the others."""
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="hub") as pool:
            try:
                running = [pool.submit(work, name) for name in names]
                wait(running, return_when=FIRST_EXCEPTION)
                failed = (each for each in running if each.done() and each.exception())
                if first := next(failed, None):
                    first.result()
            finally:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def download(self, remote: HubFile) -> Path:
        """Download the file, or find it complete in the staging folder, and check its hash."""
        counted = 0

        def count(amount: int) -> None:
            nonlocal counted
            counted += amount
            self._advance(amount, remote.name)

        with hub_errors(self._repository):
            path = self._transferred(remote, count)
        self._advance(remote.size - counted, remote.name)
        sha256, git = _hashes(path, remote)
        if not remote.holds(sha256, git):
            path.unlink()
            raise IntegrityError(
                f"{self._repository.name}/{remote.path} does not have the hash that the hub gives. "
                "Its bytes were deleted.",
                remedy="Repeat the command. Complete files are kept.",
            )
        return path

    def _transferred(self, remote: HubFile, count: Callable[[int], None]) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(
                hf_hub_download(
                    self._repository.name,
                    remote.path,
                    repo_type=self._repository.kind,
                    revision=self._commit,
                    local_dir=self._staging,
                    endpoint=endpoint(),
                    tqdm_class=_bar(count),
                )
            )
        except RuntimeError as error:  # the transfer by hf_xet has no errors of its own
            raise InputError(
                f"{endpoint()} could not send {self._repository.name}/{remote.path}: {error}.",
                remedy="Repeat the command. HF_HUB_DISABLE_XET=1 uses plain HTTP.",
            ) from None

    def _advance(self, amount: int, note: str) -> None:
        if self._stop.is_set():
            raise TransferStoppedError
        with self._lock:
            self._progress.advance(amount, note)


class TransferStoppedError(Exception):
    """Another file failed, or the user stopped the command."""


def _bar(count: Callable[[int], None]) -> Any:
    """The class of progress bars that huggingface_hub wants: `count` gets the bytes that reached the disk."""

    class Bar:
        total = 0

        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, amount: float | None = 1) -> None:
            count(int(amount or 0))

        def update_transfer(self, amount: float | None = 1) -> None:
            """Bytes of the network, which differ from those of the file if the transfer compresses."""

        def set_postfix_str(self, *_: object, **__: object) -> None: ...

        def set_transfer_postfix_str(self, *_: object, **__: object) -> None: ...

        def refresh(self) -> None: ...

        def close(self) -> None: ...

    return Bar


def _hashes(path: Path, remote: HubFile) -> tuple[str, str]:
    """SHA-256 of a large file, or git's blob id of a small one; the other is empty."""
    with path.open("rb") as file:
        if remote.sha256:
            return hashlib.file_digest(file, "sha256").hexdigest(), ""
        return "", _git_hash(iter(lambda: file.read(BLOCK), b""), path.stat().st_size)


def _git_hash(blocks: Iterable[bytes], size: int) -> str:
    """Git's id of a blob of `size` bytes."""
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for block in blocks:
        found.update(block)
    return found.hexdigest()
