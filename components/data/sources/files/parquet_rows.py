"""Parquet: the published layout, and tables with other columns. Reads a few row groups at a time."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.data.sources.files.source_form import FileRows, SourceForm, always, base_name
from components.data.sources.files.table_columns import check_columns, row_or_refusal
from components.data.sources.rows.row_reader import RowReader
from components.data.sources.source import Wanted
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.parquet_file import ParquetTable, open_parquet


@dataclass(frozen=True, kw_only=True)
class ParquetRows(FileRows):
    """The rows of `files`, in the order of the files."""

    def read(self, wanted: Wanted) -> Iterator[Any]:
        first = 0
        for file in self.files:
            with self._open(file) as table:
                ids = [name for name in self.reader.id_columns if name in table.schema.names]
                for groups in table.passes():
                    count = sum(table.groups[group] for group in groups)
                    needed = any(wanted(number) for number in range(first, first + count))
                    yield from map(row_or_refusal, table.rows(groups, table.schema.names if needed else ids))
                    first += count

    def count(self) -> int:
        total = 0
        for file in self.files:
            with self._open(file) as table:
                total += sum(table.groups)
        return total

    @contextmanager
    def _open(self, file: StoredObject) -> Iterator[ParquetTable]:
        """Open a file and check its columns."""
        with open_parquet(self.store, file.key) as table:
            check_columns(table.schema, self.store.uri(file.key), self.reader)
            yield table


def is_published(file: StoredObject, split: str) -> bool:
    """Whether a file of the published layout holds rows of this split."""
    return re.fullmatch(rf"{split}(-.*)?\.parquet", base_name(file)) is not None


def _open_rows(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> ParquetRows:
    return ParquetRows(store=store, files=tuple(files), reader=reader)


PARQUET = SourceForm(name="parquet", suffixes=(".parquet",), recognises=always, open=_open_rows)
