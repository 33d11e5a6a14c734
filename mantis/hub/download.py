"""Download files of the hub into the store: resumable, with every byte hashed, all from one revision.

The bytes of a file are collected in a local folder and checked against the hub's hash. Then the complete file goes into
the store.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from mantis.artifacts.manifest import File, hash_object
from mantis.errors import IntegrityError, StoreError
from mantis.hub.client import BLOCK, HubFile, Repository, file_blocks, hub_errors, newest_commit
from mantis.progress import Progress
from mantis.schema_versions import Form, versioned, without_version
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore

PIN = "fetch.json"  # repository and revision of an unfinished download
SPARE = 1 << 30  # bytes of disk that stay free


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
    store: ObjectStore, prefix: str, repository: Repository, commit: str, wanted: Sequence[HubFile], *, label: str
) -> tuple[File, ...]:
    """Fetch the missing files of `wanted` to `prefix`, and describe all of them; `label` names them in the progress.

    Raises:
        InputError: the hub cannot be reached, or denies access.
        StoreError: the disk has too little space.
        IntegrityError: a file's bytes differ from the hash that the hub gives.
    """
    missing = [remote for remote in wanted if not _is_there(store, prefix, remote)]
    staging = staging_folder(store, label, commit)
    _check_disk(store, staging, missing)
    progress = Progress(label=f"fetch {label}", total=sum(remote.size for remote in missing), unit="bytes")
    for remote in missing:
        with hub_errors(repository):
            path = _download(repository, commit, remote, staging, progress)
        store.put_file(f"{prefix}/{remote.name}", path)
        path.unlink()
    shutil.rmtree(staging, ignore_errors=True)
    return tuple(_described(store, prefix, remote) for remote in wanted)


def _described(store: ObjectStore, prefix: str, remote: HubFile) -> File:
    sha256 = remote.sha256 or hash_object(store, f"{prefix}/{remote.name}", remote.size)
    return File(name=remote.name, size=remote.size, sha256=sha256)


def _is_there(store: ObjectStore, prefix: str, remote: HubFile) -> bool:
    entry = store.stat(f"{prefix}/{remote.name}")
    if entry is None or entry.size != remote.size:
        return False
    if remote.sha256:
        return hash_object(store, entry.key, entry.size) == remote.sha256
    hashes = _Hashes(entry.size)
    hashes.update(store.get(entry.key))
    return remote.holds(*hashes.hex())


def staging_folder(store: ObjectStore, label: str, commit: str) -> Path:
    """Return the folder of partial files for this and later attempts: beside a local store, else in the cache."""
    base = store.root if isinstance(store, LocalStore) else Path.home() / ".cache" / "mantis"
    folder = base / ".fetching" / f"{label}-{commit[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_disk(store: ObjectStore, staging: Path, missing: Sequence[HubFile]) -> None:
    """Refuse before the first byte if the disk is too small.

    Staging holds one file at a time. A local store on the same disk holds all files.
    """
    largest = max((remote.size for remote in missing), default=0)
    total = sum(remote.size for remote in missing)
    needed = largest + (total if isinstance(store, LocalStore) else 0)
    staged = sum(path.stat().st_size for path in staging.iterdir())
    free = shutil.disk_usage(staging).free
    if missing and free + staged < needed + SPARE:
        raise StoreError(
            f"{staging} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB and a reserve of 1 GB are needed.",
            remedy="Free space, or set --store to another disk.",
        )


def _download(repository: Repository, commit: str, remote: HubFile, staging: Path, progress: Progress) -> Path:
    """Download the complete file to `staging`, continuing an earlier attempt, and check its hash."""
    path = staging / remote.name
    hashes = _Hashes(remote.size)
    have = 0
    if path.exists() and path.stat().st_size <= remote.size:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                hashes.update(block)
                have += len(block)
        progress.advance(have)
    with path.open("ab" if have else "wb") as file:
        for block in file_blocks(repository, commit, remote, have):
            file.write(block)
            hashes.update(block)
            progress.advance(len(block), remote.name)
    if not remote.holds(*hashes.hex()):
        path.unlink()
        raise IntegrityError(
            f"{repository.name}/{remote.path} does not have the hash that the hub gives. Its bytes were deleted.",
            remedy="Repeat the command. Complete files are kept.",
        )
    return path


class _Hashes:
    """SHA-256 and git's blob id of a stream of bytes."""

    def __init__(self, size: int) -> None:
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self._sha256.update(block)
        self._git.update(block)

    def hex(self) -> tuple[str, str]:
        return self._sha256.hexdigest(), self._git.hexdigest()
