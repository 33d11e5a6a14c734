"""Reads rows of Parquet files with bounded memory, whatever the file holds.

Values of a dictionary stay shared: a picture that a file repeats a thousand times is one object in memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mantis.errors import InputError
from mantis.store.base import ObjectStore
from mantis.store.parquet_pages import BatchTooLarge, ColumnChunk, PageGuard, PageRefused, ValuesRepeated
from mantis.store.range_file import open_range_file

if TYPE_CHECKING:
    import pyarrow as pa

ROW_BYTES = 128 << 20  # of all values of a row
ROW_VALUES = 100_000
BATCH_ROWS = 1024
BATCH_BYTES = 32 << 20  # of the data pages of one batch
GROUPS_AT_ONCE = 16  # small row groups that are read in one pass, since each pass costs a millisecond
SLICE_BYTES, SLICE_VALUES = 16 << 20, 100_000  # of the rows that become Python objects at once
BUFFER = 1 << 16  # bytes; the file object itself reads larger pieces ahead
FOOTER_BYTES = 32 << 20
LONGEST_FIXED = 256  # bytes of a value of fixed length
REWRITE = (
    "Write the file again in small row groups: pq.write_table(table, FILE, row_group_size=16, use_dictionary=False)."
)

Sizes = tuple[NDArray[np.int64], NDArray[np.int64]]  # for each row, its number of values and of bytes


@dataclass(frozen=True, kw_only=True)
class RefusedRow:
    """A row that needs more memory than a row may. `value` was found, `threshold` is allowed."""

    value: str
    threshold: str


class ParquetTable:
    """An open Parquet file. `groups` holds the number of rows of each row group."""

    def __init__(self, origin: str, guard: PageGuard) -> None:
        import pyarrow.parquet as pq

        self._origin, self._guard = origin, guard
        with pq.ParquetFile(guard) as plain:
            self.schema: pa.Schema = plain.schema_arrow
            self._metadata = plain.metadata
        self.groups = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
        self._columns = {
            column.path: column for column in map(self._metadata.schema.column, range(self._metadata.num_columns))
        }
        self._batch_rows = BATCH_ROWS
        self._file = pq.ParquetFile(guard, metadata=self._metadata, buffer_size=BUFFER, pre_buffer=False)
        self._written_out = True

    def passes(self) -> Iterator[tuple[int, ...]]:
        """Yield row groups that are neighbours and together small, in order: what `rows` reads at once."""
        together: list[int] = []
        rows = size = 0
        for group, count in enumerate(self.groups):
            added = sum(chunk.total_uncompressed_size for chunk in self._chunks(group))
            full = len(together) == GROUPS_AT_ONCE or rows + count > BATCH_ROWS or size + added > BATCH_BYTES // 2
            if together and full:
                yield tuple(together)
                together, rows, size = [], 0, 0
            together.append(group)
            rows, size = rows + count, size + added
        if together:
            yield tuple(together)

    def rows(self, groups: Sequence[int], columns: Sequence[str]) -> Iterator["dict[str, Any] | RefusedRow"]:
        """Yield the rows of some row groups, with these columns or none. Text that is not UTF-8 has lone surrogates.

        Raises:
            InputError: a page, a single row or a value of fixed length is larger than the limits of this module.
        """
        if not columns:
            yield from ({} for group in groups for _ in range(self.groups[group]))
            return
        for batch in self._batches(list(groups), list(columns)):
            yield from batch_rows(batch)

    def _keep_dictionaries(self) -> None:
        """Read indices in place of values from now on: a page of some bytes can name one large value a million times.

        This takes longer, and Arrow copies a dictionary several times.
        """
        import pyarrow.parquet as pq

        named = {
            chunk.path_in_schema
            for group in range(len(self.groups))
            for chunk in self._chunks(group)
            if chunk.physical_type == "BYTE_ARRAY" and _has_dictionary(chunk)
        }
        options = {"metadata": self._metadata, "buffer_size": BUFFER, "pre_buffer": False}
        self._file = pq.ParquetFile(self._guard, read_dictionary=sorted(named), **options)
        self._written_out = False

    def _chunks(self, group: int) -> list[Any]:
        row_group = self._metadata.row_group(group)
        return [row_group.column(number) for number in range(row_group.num_columns)]

    def _batches(self, groups: list[int], columns: list[str]) -> Iterator["pa.RecordBatch"]:
        """Yield the row groups in batches. A batch that is too large begins again with half the rows."""
        import pyarrow as pa

        chunks = [chunk for group in groups for chunk in self._chunks(group) if _belongs(chunk.path_in_schema, columns)]
        self._refuse_long_values(chunks)
        rows = sum(self.groups[group] for group in groups)
        done = 0
        size = self._first_size(rows, chunks)
        while done < rows:
            try:
                for batch in self._read(groups, columns, chunks, size, skip=done):
                    done += len(batch)
                    yield batch
                return
            except PageRefused as refusal:
                raise InputError(f"{self._origin}: {refusal}.", remedy=REWRITE) from None
            except ValuesRepeated:
                self._keep_dictionaries()
                continue
            except (BatchTooLarge, pa.ArrowNotImplementedError):  # Arrow says so above 2 GiB of nested values
                if size == 1:
                    raise InputError(
                        f"{self._origin}: {self._place_of(groups, done)} holds more than {ROW_BYTES >> 20} MiB, or "
                        "its pages hold too many values.",
                        remedy=f"Split the row. {REWRITE}",
                    ) from None
            size = self._batch_rows = max(1, size // 2)

    def _place_of(self, groups: Sequence[int], row: int) -> str:
        """The place of a row that is number `row` of some row groups."""
        for group in groups:
            if row < self.groups[group]:
                break
            row -= self.groups[group]
        return f"row {row} of row group {group}"

    def _first_size(self, rows: int, chunks: Sequence[Any]) -> int:
        """Rows of the first batch, from the footer's totals. The sizes of pages correct it."""
        total: int = sum(chunk.total_uncompressed_size for chunk in chunks)
        return max(1, min(self._batch_rows, BATCH_BYTES * rows // max(1, 2 * total)))

    def _read(
        self, groups: list[int], columns: list[str], chunks: Sequence[Any], size: int, *, skip: int
    ) -> Iterator["pa.RecordBatch"]:
        self._guard.watch([self._place(chunk) for chunk in chunks])
        batches = self._file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False)
        limit = BATCH_BYTES if size > 1 else ROW_BYTES
        self._guard.begin_batch(limit)
        for batch in batches:
            kept = batch.slice(min(skip, len(batch)))
            skip -= len(batch) - len(kept)
            if len(kept):
                yield kept
            self._guard.begin_batch(limit)

    def _place(self, chunk: Any) -> ColumnChunk:
        starts = [chunk.data_page_offset]
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            starts.append(chunk.dictionary_page_offset)
        column = self._columns[chunk.path_in_schema]
        return ColumnChunk(
            path=chunk.path_in_schema,
            start=min(starts),
            end=min(starts) + chunk.total_compressed_size,
            codec=chunk.compression,
            levels=(column.max_definition_level > 0) + (column.max_repetition_level > 0),
            written_out=self._written_out and chunk.physical_type == "BYTE_ARRAY",
        )

    def _refuse_long_values(self, chunks: Sequence[Any]) -> None:
        for chunk in chunks:
            column = self._columns[chunk.path_in_schema]
            if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > LONGEST_FIXED:
                raise InputError(
                    f"{self._origin}: column {column.path} has values of {column.length} bytes each, more than "
                    f"{LONGEST_FIXED}.",
                    remedy="Write the column as binary of variable length.",
                )


@contextmanager
def open_parquet(store: ObjectStore, key: str) -> Iterator[ParquetTable]:
    """Open a Parquet file of a store.

    Raises:
        InputError: the file cannot be read as Parquet.
        NotFoundError: no such object.
    """
    import pyarrow as pa

    origin = store.uri(key)
    with open_range_file(store, key) as raw:
        size = raw.seek(0, 2)
    guard = PageGuard(size, lambda start, length: store.get_range(key, start, length))
    try:
        _check_footer(guard, size, origin)
        yield ParquetTable(origin, guard)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"{origin} cannot be read as Parquet: {reason}.", remedy="Fetch the file again. It may be cut off."
        ) from None


def _check_footer(guard: PageGuard, size: int, origin: str) -> None:
    guard.seek(max(0, size - 8))
    length = int.from_bytes(guard.read(4), "little")
    guard.seek(0)
    if FOOTER_BYTES < length < size:  # a length beyond the file is Arrow's to refuse
        raise InputError(f"{origin}: a footer of {length >> 20} MiB, more than {FOOTER_BYTES >> 20}.", remedy=REWRITE)


def _belongs(path: str, columns: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _has_dictionary(chunk: Any) -> bool:
    return any("DICTIONARY" in name for name in chunk.encodings)


def batch_rows(batch: "pa.RecordBatch") -> Iterator["dict[str, Any] | RefusedRow"]:
    """The rows of an Arrow batch, a few at a time. A row that needs more memory than a row may is a RefusedRow.

    Text that is not UTF-8 gets lone surrogates. Equal values of a dictionary are one object.
    """
    values, size = _sum([_sizes(column) for column in batch.columns], len(batch))
    for start, end in _cuts(values, size):
        refused = _refusal(int(values[start]), int(size[start]))
        if refused is not None:
            yield refused
            continue
        part = batch.slice(start, end - start)
        if any("dictionary<" in str(kind) for kind in batch.schema.types):
            yield from _shared_rows(part)
            continue
        try:
            yield from part.to_pylist()
        except UnicodeDecodeError:
            yield from _shared_rows(part)


def _shared_rows(batch: "pa.RecordBatch") -> Iterator[dict[str, Any]]:
    """Rows of a batch with dictionaries, or with text that is not UTF-8."""
    for cells in zip(*map(_python, batch.columns), strict=True):
        yield dict(zip(batch.schema.names, cells, strict=True))


def _cuts(values: NDArray[np.int64], size: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut a batch into slices that become Python objects at once. A refused row is a slice of its own."""
    weights = np.maximum(values / SLICE_VALUES, size / SLICE_BYTES)
    places, total = [0], 0.0
    for row, weight in enumerate(weights.tolist()):
        if row and total + weight > 1:
            places.append(row)
            total = 0.0
        total += weight
    return list(pairwise([*places, len(weights)])) if len(weights) else []


def _refusal(values: int, size: int) -> RefusedRow | None:
    if values > ROW_VALUES:
        return RefusedRow(value=f"{values:,} values", threshold=f"{ROW_VALUES:,} values")
    if size > ROW_BYTES:
        return RefusedRow(value=f"{size >> 20:,} MiB", threshold=f"{ROW_BYTES >> 20:,} MiB")
    return None


def _sizes(array: Any) -> Sizes:
    """Numbers of values and of bytes in each row of `array`. A value of a dictionary counts each time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    kind = array.type
    if kinds.is_struct(kind):
        return _sum([_sizes(array.field(number)) for number in range(kind.num_fields)], len(array))
    if _has_offsets(kind):
        return _sums_between(_sizes(_inner(array)), array.offsets)
    if kinds.is_fixed_size_list(kind):
        return _sizes(array.cast(pa.list_(kind.value_field)))
    if kinds.is_dictionary(kind):
        lengths = _lengths(array.dictionary)
        places = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
        return np.ones(len(array), np.int64), lengths[places] if len(lengths) else np.zeros(len(array), np.int64)
    return np.ones(len(array), np.int64), _lengths(array)


def _sum(parts: Sequence[Sizes], rows: int) -> Sizes:
    nothing = np.zeros(rows, np.int64)
    return sum((part[0] for part in parts), nothing), sum((part[1] for part in parts), nothing)


def _sums_between(inner: Sizes, offsets: Any) -> Sizes:
    places = offsets.to_numpy() - offsets[0].as_py()
    values, size = (np.concatenate([[0], np.cumsum(one)])[places] for one in inner)
    return np.diff(values) + 1, np.diff(size)


def _lengths(array: Any) -> NDArray[np.int64]:
    """Bytes of each value that is no list."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    kind = array.type
    if not any(test(kind) for test in (kinds.is_binary, kinds.is_large_binary, kinds.is_string, kinds.is_large_string)):
        if not (kinds.is_string_view(kind) or kinds.is_binary_view(kind)):
            return np.full(len(array), 8, np.int64)
        array = array.cast(pa.large_binary())
    lengths: NDArray[np.int64] = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _has_offsets(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_map(kind))


def _inner(array: Any) -> Any:
    """The items of all lists of `array`, in one array."""
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.values.slice(first, last - first)


def _python(array: Any) -> list[Any]:
    """The values of `array` as Python objects. Equal values of a dictionary are one object."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    kind = array.type
    if kinds.is_struct(kind):
        names = [field.name for field in kind]
        cells = zip(*(_python(array.field(number)) for number in range(len(names))), strict=True)
        return _with_nulls(array, [dict(zip(names, row, strict=True)) for row in cells] if names else [{}] * len(array))
    if _has_offsets(kind):
        items = _python(_inner(array))
        if kinds.is_map(kind):
            items = [tuple(item.values()) for item in items]
        places = (array.offsets.to_numpy() - array.offsets[0].as_py()).tolist()
        return _with_nulls(array, [items[start:end] for start, end in pairwise(places)])
    if kinds.is_fixed_size_list(kind):
        return _python(array.cast(pa.list_(kind.value_field)))
    if kinds.is_dictionary(kind):
        indices = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
        used, inverse = np.unique(indices, return_inverse=True)
        shared = _plain(array.dictionary.take(pa.array(used))) if len(array.dictionary) else [None]
        return _with_nulls(array, [shared[place] for place in inverse.tolist()])
    return _plain(array)


def _with_nulls(array: Any, values: list[Any]) -> list[Any]:
    if not array.null_count:
        return values
    return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def _plain(array: Any) -> list[Any]:
    import pyarrow as pa

    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        return [
            None if value is None else value.decode(errors="surrogateescape")
            for value in array.cast(pa.large_binary()).to_pylist()
        ]
    return values
