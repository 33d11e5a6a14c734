"""Lance tables in the store: written in batches or fragment by fragment, read at random."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from mantis.errors import IntegrityError, StoreError
from mantis.store.base import ObjectStore, concurrently, delete_tree

ENDS = "expires_at_millis"  # Lance's option: when the credentials end


def write_table(store: ObjectStore, key: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write `batches` as the Lance table at `key` and return its number of rows; what lay there is deleted first.

    One batch at a time is held. An error that `batches` raises comes through as it is.

    Raises:
        StoreError: the store did not take the data.
    """
    import lance

    delete_tree(store, key)  # the parts of an attempt that was killed would stay beside the new ones
    with _reading(store, key, schema, batches) as reader:
        table = lance.write_dataset(reader, mode="create", **_place(store, key))
    return int(table.count_rows())


def withdraw_commit(store: ObjectStore, key: str) -> None:
    """Leave the fragments of the table at `key`, but no table: before fragments are written again."""
    for part in ("_versions", "_transactions"):
        delete_tree(store, f"{key}/{part}")


def write_fragments(
    store: ObjectStore, key: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> tuple[str, ...]:
    """Write `batches` as fragments of a table to be at `key`; `commit_fragments` will name them.

    Returns each fragment's metadata as JSON. Any number of writers may work on one table; the rest is as in
    `write_table`.
    """
    from lance.fragment import write_fragments

    with _reading(store, key, schema, batches) as reader:
        written = write_fragments(reader, store.lance_uri(key), schema, mode="create", **_options(store, key))
    return tuple(json.dumps(fragment.to_json()) for fragment in written)


def fragment_keys(key: str, fragments: Iterable[str]) -> list[str]:
    """The keys of the objects that hold `fragments` of the table at `key`."""
    return [f"{key}/data/{file['path']}" for text in fragments for file in json.loads(text)["files"]]


def commit_fragments(store: ObjectStore, key: str, schema: pa.Schema, fragments: Sequence[str]) -> int:
    """Make `fragments`, in this order, the whole table at `key`, and return its number of rows.

    What lies there beside them, an earlier commit or what killed writers left, is deleted.

    Raises:
        IntegrityError: a file of a fragment is gone.
        StoreError: the store did not take the commit.
    """
    import lance

    named = set(fragment_keys(key, fragments))
    there = {entry.key for entry in store.list(key)}
    if named - there:
        raise IntegrityError(
            f"{store.uri(min(named - there))} is missing: a fragment that was written before.",
            remedy=f"Delete the folder {store.uri(key.rpartition('/')[0])} and start again.",
        )
    concurrently(store.delete, there - named)
    operation = lance.LanceOperation.Overwrite(schema, [lance.FragmentMetadata.from_json(text) for text in fragments])
    with _storing(store, key):
        table = lance.LanceDataset.commit(store.lance_uri(key), operation, **_options(store, key))
    return int(table.count_rows())


@contextmanager
def _reading(
    store: ObjectStore, key: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatchReader]:
    """A reader of `batches` for Lance, which would turn their errors into an OSError of its own."""
    failed: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            failed.append(error)
            raise

    try:
        with _storing(store, key):
            yield pa.RecordBatchReader.from_batches(schema, guarded())
    except Exception:
        if failed:
            raise failed[0] from None
        raise


@contextmanager
def _storing(store: ObjectStore, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{store.uri(key)} cannot be written: {error}.",
            remedy="Check the store's free space and rights; `mantis doctor` tries them.",
        ) from None


def open_table(store: ObjectStore, key: str) -> Any:
    """The Lance table at `key`, a lance.LanceDataset.

    Raises:
        StoreError: there is none, or the store is away.
    """
    import lance

    try:
        return lance.dataset(**_place(store, key))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{store.uri(key)} cannot be opened as a Lance table: {error}.", remedy="Run the step that makes it."
        ) from None


def _options(store: ObjectStore, key: str) -> dict[str, Any]:
    """How Lance reaches the table at `key`; with credentials that end, also from where it takes the next ones."""
    options = store.lance_options()
    if ENDS not in options:
        return {"storage_options": options or None}
    from mantis.store.lance_credentials import TableNamespace

    return {"storage_options": options, "namespace_client": TableNamespace(store, key), "table_id": [key]}


def _place(store: ObjectStore, key: str) -> dict[str, Any]:
    """`_options` and the address, for functions of Lance that take either an address or a namespace."""
    options = _options(store, key)
    return options if ENDS in (options["storage_options"] or {}) else {"uri": store.lance_uri(key), **options}
