"""Lance tables in the store: written in batches, read at random."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from components.core.errors import StoreError
from components.core.store import ObjectStore, delete_tree


def write_table(store: ObjectStore, key: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write `batches` as the Lance table at `key` and return its number of rows; what lay there is deleted first.

    One batch at a time is held. An error that `batches` raises comes through as it is.

    Raises:
        StoreError: the store did not take the data.
    """
    import lance

    failed: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            failed.append(error)  # Lance would turn it into an OSError of its own
            raise

    delete_tree(store, key)  # the parts of an attempt that was killed would stay beside the new ones
    reader = pa.RecordBatchReader.from_batches(schema, guarded())
    try:
        table = lance.write_dataset(
            reader, store.lance_uri(key), mode="create", storage_options=store.lance_options() or None
        )
    except Exception as error:
        if failed:
            raise failed[0] from None
        if not isinstance(error, OSError):
            raise
        raise StoreError(
            f"{store.uri(key)} cannot be written: {error}.",
            remedy="Check the store's free space and rights; `mantis doctor` tries them.",
        ) from None
    return int(table.count_rows())


def open_table(store: ObjectStore, key: str) -> Any:
    """The Lance table at `key`, a lance.LanceDataset.

    Raises:
        StoreError: there is none, or the store is away.
    """
    import lance

    try:
        return lance.dataset(store.lance_uri(key), storage_options=store.lance_options() or None)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{store.uri(key)} cannot be opened as a Lance table: {error}.", remedy="Run the step that makes it."
        ) from None
