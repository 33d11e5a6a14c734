"""Folders of the repository and of local stores."""

from pathlib import Path

from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore

ROOT = Path(__file__).parents[2]


def root_of(store: ObjectStore) -> Path:
    """The folder of a local store."""
    assert isinstance(store, LocalStore)
    return store.root
