"""From an address to a key of a store, and the check that a store works: both need the layout."""

import uuid

from mantis.artifacts.layout import possible_keys, run_key
from mantis.errors import ConfigError, StoreError
from mantis.store.base import ObjectStore
from mantis.store.store_url import folder_of, scheme_of


def key_of(store: ObjectStore, address: str) -> str:
    """The key that `address` means in `store`: a key stays as it is, an absolute URI loses the address of the store.

    Raises:
        ConfigError: the URI has the address of another store.
    """
    if "://" not in address:
        return address.strip("/")
    root = store.url.rstrip("/") + "/"
    if address.startswith(root):
        return address.removeprefix(root).rstrip("/")
    # A store that was copied or moved holds the object under another address: an old report may name the former one.
    here = next((key for key in possible_keys(address) if _holds(store, key)), None)
    raise ConfigError(
        f"{address} is not an address of the store {store.url}.",
        remedy=f"This store holds the same key: name {here}. Or name the other store with --store."
        if here
        else "Name the store that holds it (--store).",
    )


def key_below(store_url: str, address: str) -> str:
    """`address` as a key where it lies in the store at `store_url`, else as it is; no store is opened."""
    if scheme_of(store_url) in ("", "file"):
        root = folder_of(store_url).absolute()
        roots = [f"{root.as_uri()}/", f"{root}/"]
    else:
        roots = [f"{store_url.rstrip('/')}/"]
    here = next((each for each in roots if address.startswith(each)), "")
    return address.removeprefix(here).rstrip("/") if here else address


def check_store(store: ObjectStore) -> None:
    """Write, read and delete an object.

    Raises:
        StoreError: one of the three did not work.
    """
    key = run_key(f".probe-{uuid.uuid4().hex}")
    store.put(key, b"probe")
    if store.get(key) != b"probe":
        raise StoreError(f"{store.url} gives back other bytes than were written.", remedy="Check the server.")
    store.delete(key)


def _holds(store: ObjectStore, key: str) -> bool:
    return store.stat(key) is not None or next(iter(store.list(key)), None) is not None
