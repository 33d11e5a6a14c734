"""Parquet: the published layout, and tables with other columns. Reads one row group at a time."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.data.sources.files.arrow_values import row_values
from components.data.sources.files.source_form import SourceForm, always, base_name
from components.data.sources.files.table_columns import check_columns
from components.data.sources.rows.row_reader import RowReader
from components.data.sources.source import Wanted
from components.data.sources.source_identity import Memory, hash_files
from mantis.errors import InputError
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.range_file import open_range_file

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH_ROWS = 64  # few, since rows may embed images
BUFFER = 1 << 22  # bytes of a column that are requested at once


@dataclass(frozen=True, kw_only=True)
class ParquetRows:
    """The rows of `files`, in the order of the files."""

    store: ObjectStore
    files: tuple[StoredObject, ...]
    reader: RowReader

    @property
    def url(self) -> str:
        return self.store.uri(self.files[0].key)

    def read(self, wanted: Wanted) -> Iterator[Any]:
        first = 0
        for file in self.files:
            with self._open(file) as parquet:
                ids = [name for name in self.reader.id_columns if name in parquet.schema_arrow.names]
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    needed = any(wanted(number) for number in range(first, first + count))
                    yield from _rows(parquet, group, parquet.schema_arrow.names if needed else ids)
                    first += count

    def count(self) -> int:
        total = 0
        for file in self.files:
            with self._open(file) as parquet:
                total += parquet.metadata.num_rows
        return total

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the files' SHA-256. A Parquet footer has no checksum of the data."""

        def hashed(file: StoredObject) -> str:
            return memory.recall("sha256", self.store, [file], lambda: hash_files(self.store, [file])[0])

        return fingerprint([hashed(file) for file in self.files])

    @contextmanager
    def _open(self, file: StoredObject) -> "Iterator[pq.ParquetFile]":
        """Open a file and check its columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        origin = self.store.uri(file.key)
        try:
            with open_range_file(self.store, file.key) as raw, pq.ParquetFile(raw, buffer_size=BUFFER) as parquet:
                check_columns(parquet.schema_arrow, origin, self.reader)
                yield parquet
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{origin} cannot be read as Parquet: {error}.", remedy="Fetch the file again. It may be cut off."
            ) from None


def is_published(file: StoredObject, split: str) -> bool:
    """Whether a file of the published layout holds rows of this split."""
    return re.fullmatch(rf"{split}(-.*)?\.parquet", base_name(file)) is not None


def _rows(parquet: "pq.ParquetFile", group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    if not columns:  # the rows are not wanted, and have no ids
        yield from ({} for _ in range(parquet.metadata.row_group(group).num_rows))
        return
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
        yield from row_values(batch)


def _open_rows(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> ParquetRows:
    return ParquetRows(store=store, files=tuple(files), reader=reader)


PARQUET = SourceForm(name="parquet", suffixes=(".parquet",), recognises=always, open=_open_rows)
