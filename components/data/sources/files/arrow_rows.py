"""A data set that `datasets` wrote with `save_to_disk`: Arrow streams `data-<n>-of-<n>.arrow` beside a state.json."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from components.data.sources.files.source_form import FileRows, SourceForm, base_name
from components.data.sources.files.table_columns import check_columns, row_or_refusal
from components.data.sources.rows.row_reader import RowReader
from components.data.sources.source import Wanted
from mantis.errors import InputError
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.local import LocalStore
from mantis.store.parquet_file import batch_rows
from mantis.store.range_file import stream

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = re.compile(r"data-(\d+)-of-(\d+)\.arrow")  # `datasets` writes its caches beside them, under other names
DICTIONARY = "dataset_dict.json"  # in the folder above, if each split has a folder of its own
ROWS_AT_ONCE = 64  # of which none is read if none is wanted
FILE_MAGIC = b"ARROW1"  # of Arrow's file format (Feather 2); without it the file is a stream


@dataclass(frozen=True, kw_only=True)
class ArrowRows(FileRows):
    """The rows of `files`, in the order of the files."""

    def read(self, wanted: Wanted) -> Iterator[Any]:
        first = 0
        for batch in self._batches():
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                part = batch.slice(start, ROWS_AT_ONCE)
                if not any(wanted(number) for number in range(first, first + part.num_rows)):
                    part = part.select([name for name in self.reader.id_columns if name in part.schema.names])
                rows = map(row_or_refusal, batch_rows(part))
                yield from rows if part.num_columns else ({} for _ in range(part.num_rows))
                first += part.num_rows

    def count(self) -> int:
        return sum(batch.num_rows for batch in self._batches())

    def _batches(self) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        self._require_all()
        for file in self.files:
            origin = self.store.uri(file.key)
            try:
                with self._opened(file) as batches:
                    check_columns(batches.schema, origin, self.reader)
                    yield from batches
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"{origin} cannot be read as Arrow: {error}.", remedy="Copy the file again. It may be cut off."
                ) from None

    @contextmanager
    def _opened(self, file: StoredObject) -> "Iterator[_Batches]":
        """The batches of a file. A local file is mapped into memory, so that only the pages in use are read."""
        import pyarrow as pa
        import pyarrow.ipc as ipc

        local = isinstance(self.store, LocalStore)
        raw = pa.memory_map(self.store.lance_uri(file.key)) if local else stream(self.store, file.key)
        with raw:
            if self.store.get_range(file.key, 0, len(FILE_MAGIC)) == FILE_MAGIC:
                found = ipc.open_file(raw)
                yield _Batches(found.schema, (found.get_batch(at) for at in range(found.num_record_batches)))
            else:
                with ipc.open_stream(raw) as opened:
                    yield _Batches(opened.schema, opened)

    def _require_all(self) -> None:
        """Check that no shard is missing.

        Raises:
            InputError: the names of the files count more shards than there are.
        """
        named = [found for file in self.files if (found := SHARD.fullmatch(base_name(file)))]
        if named and len(named) != int(named[0][2]):
            raise InputError(
                f"{self.url.rpartition('/')[0]} has {len(named)} of {int(named[0][2])} Arrow files.",
                remedy="Copy the whole folder.",
            )


@dataclass(frozen=True)
class _Batches:
    schema: "pa.Schema"
    found: "Any"

    def __iter__(self) -> "Iterator[pa.RecordBatch]":
        return cast("Iterator[pa.RecordBatch]", iter(self.found))


def _recognises(store: ObjectStore, file: StoredObject) -> bool:
    return SHARD.fullmatch(base_name(file)) is not None


def _open(store: ObjectStore, files: Sequence[StoredObject], reader: RowReader) -> ArrowRows:
    return ArrowRows(store=store, files=tuple(files), reader=reader)


ARROW = SourceForm(name="arrow", suffixes=(".arrow",), recognises=_recognises, open=_open)
