"""Files of the hub into the store: resumable within a file, every byte hashed, one revision.

The bytes of a file are gathered in a local folder, checked against the hash that the hub gives, and only then put into
the store, whole.
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

PIN = "fetch.json"  # repository and revision of what is being fetched
SPARE = 1 << 30  # bytes of disk that are left alone


def pinned_commit(store: ObjectStore, prefix: str, repository: Repository, revision: str, default: str) -> str:
    """The commit to fetch: asked for, begun with, or what `default` means today; noted before the first byte."""
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
    """Bring what is missing of `wanted` to `prefix`, and describe all of it; `label` names it in the progress.

    Raises:
        InputError: the hub is away, or does not let us.
        StoreError: too little disk.
        IntegrityError: other bytes came than the hub promised.
    """
    missing = [remote for remote in wanted if not _is_there(store, prefix, remote)]
    staging = _staging(store, label, commit)
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


def _staging(store: ObjectStore, label: str, commit: str) -> Path:
    """Where partial files wait: beside a local store, else in the user's cache; found again by the next attempt."""
    base = store.root if isinstance(store, LocalStore) else Path.home() / ".cache" / "mantis"
    folder = base / ".fetching" / f"{label}-{commit[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_disk(store: ObjectStore, staging: Path, missing: Sequence[HubFile]) -> None:
    """Refuse before the first byte what cannot fit: one file at a time is staged, a local store holds all of them."""
    largest = max((remote.size for remote in missing), default=0)
    total = sum(remote.size for remote in missing)
    needed = largest + (total if isinstance(store, LocalStore) else 0)
    staged = sum(path.stat().st_size for path in staging.iterdir())
    free = shutil.disk_usage(staging).free
    if missing and free + staged < needed + SPARE:
        raise StoreError(
            f"{staging} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB and 1 GB to spare are needed.",
            remedy="Free space, or name a store elsewhere (--store).",
        )


def _download(repository: Repository, commit: str, remote: HubFile, staging: Path, progress: Progress) -> Path:
    """The whole file in `staging`, its hash checked; goes on with what an earlier attempt left there."""
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
            f"{repository.name}/{remote.path} came with other bytes than the hub promised; they were thrown away.",
            remedy="Start again; what is complete stays.",
        )
    return path


class _Hashes:
    """SHA-256 and git's blob id of bytes as they come."""

    def __init__(self, size: int) -> None:
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, block: bytes) -> None:
        self._sha256.update(block)
        self._git.update(block)

    def hex(self) -> tuple[str, str]:
        return self._sha256.hexdigest(), self._git.hexdigest()
