"""Finds the fetched published sets in the store, at sources/<subset>/."""

from mantis.artifacts.layout import PUBLISHED, ArtifactKind
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.artifacts.source_names import FETCHED
from mantis.store.base import ObjectStore


def source_url(store: ObjectStore, source: str) -> str:
    """URL of `data.source` for a run in `store`."""
    return store.uri(PUBLISHED.root) if source == FETCHED else source


def fetched_sets(store: ObjectStore) -> dict[str, Manifest]:
    """The published sets whose manifest is in the store, by name."""
    found = {}
    for key in store.children(PUBLISHED.root)[1]:
        manifest = read_manifest(store, key)
        if manifest is not None and manifest.kind is ArtifactKind.SOURCE:
            found[key.rpartition("/")[2]] = manifest
    return found
