"""Where published sets lie in the store once they were fetched: sources/<subset>/."""

from mantis.artifacts.layout import PUBLISHED, ArtifactKind
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.artifacts.source_names import FETCHED
from mantis.store.base import ObjectStore


def source_url(store: ObjectStore, source: str) -> str:
    """The address that `data.source` means for a run in `store`."""
    return store.uri(PUBLISHED.root) if source == FETCHED else source


def fetched_sets(store: ObjectStore) -> dict[str, Manifest]:
    """The published sets that are completely in the store, by name."""
    found = {}
    for key in store.children(PUBLISHED.root)[1]:
        manifest = read_manifest(store, key)
        if manifest is not None and manifest.kind is ArtifactKind.SOURCE:
            found[key.rpartition("/")[2]] = manifest
    return found
