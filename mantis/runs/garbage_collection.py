"""Find and delete the results in a store that no run leads to.

These results stay:
- results that a run's records name, and their inputs by manifest;
- sources, base weights and imported models, which people brought;
- unfinished results that a record names: a step writes its record before it starts to work;
- unfinished results without a record, such as an import, if they changed a short time ago.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from mantis.artifacts.layout import BASES, COLLECTED, RESPONSES, ArtifactKind, report_key
from mantis.artifacts.manifest import MANIFEST, read_manifest
from mantis.errors import NotFoundError, did_you_mean
from mantis.runs.records import read_records, runs
from mantis.store.base import ObjectStore, StoredObject, delete_tree


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A result that nothing leads to; `whole` False: it was never finished. `written`: its newest object."""

    key: str
    objects: int
    bytes: int
    whole: bool
    written: float

    def kept(self, hours: float) -> bool:
        """Whether somebody may be at work on it: unfinished, and written to less than `hours` ago."""
        return not self.whole and time.time() - self.written < 3600 * hours


def garbage(store: ObjectStore, *, without: frozenset[str] = frozenset()) -> list[Garbage]:
    """What no run leads to, were the runs `without` not there; what of it is kept for its age, the caller decides.

    Raises:
        NotFoundError: one of `without` is no run.
    """
    there = runs(store)
    unknown = without - set(there)
    if unknown:
        raise NotFoundError(
            f"{store.url} has no run {', '.join(sorted(unknown))}.",
            remedy=f"{did_you_mean(min(unknown), there)}`mantis status` lists the runs.",
        )
    keys, fingerprints = _named_by(store, [run for run in there if run not in without])
    reports = {report_key(run) for run in there if run not in without}
    found = []
    for heap in _heaps(store):
        under_way = heap.key.rpartition("/")[2] in fingerprints
        journal = RESPONSES.parse(heap.key)
        responded = journal is not None and any(
            kind.address(fingerprint=journal["model"]) in keys
            for kind in (ArtifactKind.MODEL, ArtifactKind.EXTERNAL_MODEL)
        )
        if heap.key in keys | reports or under_way or responded or _brought(store, heap):
            continue
        found.append(heap)
    return found


def delete(store: ObjectStore, heap: Garbage) -> None:
    """Delete the manifest first, so that a half-deleted result is no result."""
    store.delete(f"{heap.key}/{MANIFEST}")
    delete_tree(store, heap.key)


def _named_by(store: ObjectStore, kept: list[str]) -> tuple[set[str], set[str]]:
    """Keys of all that the runs lead to, and the fingerprints that their records name."""
    records = [record for run in kept for record in read_records(store, run)]
    waiting = [record.key for record in records if record.key]
    keys: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key in keys:
            continue
        keys.add(key)
        manifest = read_manifest(store, key)
        waiting += [reference.key for reference in manifest.inputs.values()] if manifest else []
    return keys, {record.fingerprint for record in records if record.fingerprint}


def _heaps(store: ObjectStore) -> Iterator[Garbage]:
    """Every result in the store, finished or not."""
    for pattern in COLLECTED:
        objects: dict[str, list[StoredObject]] = {}
        whole: set[str] = set()
        for entry in store.list(pattern.folder):
            parts = entry.key.split("/")
            if len(parts) <= pattern.depth or entry.key.startswith(f"{BASES.root}/"):
                continue
            key = "/".join(parts[: pattern.depth])
            objects.setdefault(key, []).append(entry)
            if parts[pattern.depth :] == [MANIFEST]:
                whole.add(key)
        for key, found in objects.items():
            yield Garbage(
                key=key,
                objects=len(found),
                bytes=sum(entry.size for entry in found),
                whole=key in whole or pattern is RESPONSES,
                written=max(entry.written for entry in found),
            )


def _brought(store: ObjectStore, heap: Garbage) -> bool:
    """Whether a person put it there, and no run."""
    manifest = read_manifest(store, heap.key) if heap.whole else None
    return manifest is not None and not manifest.made_by.run
