"""Where published sets lie in the store once they were fetched: sources/<subset>/."""

from mantis.artifacts.manifest import Kind, Manifest, read_manifest
from mantis.store.base import ObjectStore

FETCHED = "fetched"  # data.source: what `mantis data fetch` brought into the store
SOURCES = "sources"


def source_url(store: ObjectStore, source: str) -> str:
    """The address that `data.source` means for a run in `store`."""
    return store.uri(SOURCES) if source == FETCHED else source


def fetched_sets(store: ObjectStore) -> dict[str, Manifest]:
    """The published sets that are completely in the store, by name."""
    found = {}
    for key in store.children(SOURCES)[1]:
        manifest = read_manifest(store, key)
        if manifest is not None and manifest.kind is Kind.SOURCE:
            found[key.rpartition("/")[2]] = manifest
    return found
