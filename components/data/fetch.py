"""Published sets from the hub into the store, at sources/<subset>/."""

import re
from collections.abc import Sequence

from components.core.artifacts import Manifest, read_manifest
from components.core.errors import InputError
from components.core.fetching import commit_fetched, fetch_files, pinned_commit
from components.core.hub import Remote, Repository, hub_errors, remote_files
from components.core.progress import say
from components.core.store import ObjectStore
from components.data.fetched import SOURCES
from components.data.subsets import Hub, published_subset


def fetch_subset(
    store: ObjectStore, subset: str, *, splits: Sequence[str] = ("train",), revision: str = ""
) -> Manifest:
    """The set in the store; what is there already is not fetched again.

    Without a `revision` it is the one that was begun with, else the newest, which is then kept to.

    Raises:
        ConfigError: no such set.
        InputError: the hub is away, does not let us, or lacks the files.
        StoreError: too little disk.
        IntegrityError: other bytes came than the hub promised.
    """
    hub = published_subset(subset).hub
    repository = Repository(name=hub.repository, kind="dataset", revision=hub.revision)
    prefix = f"{SOURCES}/{subset}"
    there = read_manifest(store, prefix)
    had = str(there.summary["splits"]).split() if there else []
    if there and set(splits) <= set(had) and revision in ("", there.summary["revision"]):
        say(f"{subset} is there already, at revision {there.summary['revision']}")
        return there
    with hub_errors(repository):
        commit = pinned_commit(store, prefix, repository, revision)
        found = remote_files(repository, commit, hub.folder)
    wanted = _of_splits(hub, commit, found, [*had, *(split for split in splits if split not in had)])
    fetch_files(store, prefix, repository, commit, wanted, label=subset)
    config = {"repository": repository.name, "revision": commit, "splits": sorted({*had, *splits})}
    return commit_fetched(store, prefix, wanted, config)


def _of_splits(hub: Hub, commit: str, found: Sequence[Remote], splits: Sequence[str]) -> list[Remote]:
    """The files of these splits.

    Raises:
        InputError: a split has none.
    """
    pattern = re.compile("|".join(map(re.escape, hub.files)) or rf"({'|'.join(splits)})(-.*\.parquet|_images.*\.zip)")
    wanted = [remote for remote in found if pattern.fullmatch(remote.name)]
    lacking = [split for split in splits if not any(remote.name.startswith(f"{split}-") for remote in wanted)]
    if not wanted or (lacking and not hub.files):
        raise InputError(
            f"{hub.repository} at {commit} has no files of {', '.join(lacking) or hub.folder} in {hub.folder or '/'}.",
            remedy=f"Splits that are known: {', '.join(hub.splits)}. Or name another --revision.",
        )
    return wanted
