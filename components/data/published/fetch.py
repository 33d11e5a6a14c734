"""Fetches published sets from the hub into the store, at sources/<subset>/. The manifest completes a set."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from components.data.published.published_sets import SubsetHub, published_subset
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import File, Manifest, commit_manifest, provenance, read_manifest
from mantis.errors import InputError
from mantis.hashing import fingerprint
from mantis.hub.client import HubFile, Repository, hub_errors, list_files
from mantis.hub.download import fetch_files, pinned_commit
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

REVISION = 1
ASIDE = "bring the files another way and name their folder with --source."


def fetch_subset(
    store: ObjectStore, subset: str, *, splits: Sequence[str] = ("train",), revision: str = ""
) -> Manifest:
    """Fetch the set into the store, at sources/<subset>/. Files that are in the store are not fetched again.

    An empty `revision` means the revision of an earlier attempt, else the newest one. Later attempts keep to it.

    Raises:
        ConfigError: no published set has this name.
        InputError: the hub does not answer, refuses access, or lacks the files.
        StoreError: the disk has too little space.
        IntegrityError: the downloaded bytes do not have the hash that the hub lists.
    """
    hub = published_subset(subset).hub
    prefix = ArtifactKind.SOURCE.address(subset=subset)
    there = read_manifest(store, prefix)
    had = str(there.summary["splits"]).split() if there else []
    if there and set(splits) <= set(had) and revision in ("", there.summary["revision"]):
        logger.info("The store has %s already, at revision %s", subset, there.summary["revision"])
        return there
    repository = Repository(name=hub.repository, kind="dataset", aside=ASIDE)
    with hub_errors(repository):
        commit = pinned_commit(store, prefix, repository, revision, hub.revision)
        wanted = _remote_files(hub, repository, commit, [*had, *(split for split in splits if split not in had)])
    files = fetch_files(store, prefix, repository, commit, {each.name: each for each in wanted}, label=subset)
    return _finish(store, prefix, hub, commit, files, splits=sorted({*had, *splits}))


def _remote_files(hub: SubsetHub, repository: Repository, commit: str, splits: Sequence[str]) -> list[HubFile]:
    """List the files of these splits at a commit, in the order of their names.

    Raises:
        InputError: a split has no files.
    """
    wanted = re.compile("|".join(map(re.escape, hub.files)) or rf"({'|'.join(splits)})(-.*\.parquet|_images.*\.zip)")
    found = [remote for remote in list_files(repository, commit, hub.folder) if wanted.fullmatch(remote.name)]
    lacking = [split for split in splits if not any(remote.name.startswith(f"{split}-") for remote in found)]
    if not found or (lacking and not hub.files):
        raise InputError(
            f"{hub.repository} at {commit} has no files of {', '.join(lacking) or hub.folder} in {hub.folder or '/'}.",
            remedy=f"Choose from the known splits ({', '.join(hub.splits)}), or name another --revision.",
        )
    return found


def _finish(
    store: ObjectStore, prefix: str, hub: SubsetHub, commit: str, files: Sequence[File], *, splits: Sequence[str]
) -> Manifest:
    config: dict[str, Any] = {"repository": hub.repository, "revision": commit, "splits": list(splits)}
    manifest = Manifest(
        kind=ArtifactKind.SOURCE,
        key=prefix,
        fingerprint=fingerprint({**config, "files": {file.name: file.sha256 for file in files}}),
        made_by=provenance("fetch", REVISION, config),
        files=tuple(files),
        summary={"repository": hub.repository, "revision": commit, "splits": " ".join(splits)},
    )
    commit_manifest(store, manifest)
    return manifest
