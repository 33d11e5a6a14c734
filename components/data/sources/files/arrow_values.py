"""Turns Arrow batches into rows of Python values."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


SLICE_ROWS = 64  # few, since rows may embed images
SLICE_BYTES = 1 << 26


def slices(batch: "pa.RecordBatch") -> "Iterator[pa.RecordBatch]":
    """Cut a batch into parts of at most SLICE_ROWS rows and, on average, SLICE_BYTES bytes."""
    per_row = batch.nbytes / max(1, batch.num_rows)
    rows = max(1, min(SLICE_ROWS, int(SLICE_BYTES / max(1.0, per_row))))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def row_values(batch: "pa.RecordBatch") -> Iterator[dict[str, Any]]:
    """The rows of a batch. Text that is not UTF-8 gets lone surrogates, as in `read_list`."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        yield from _rows_of_bytes(batch)


def _rows_of_bytes(batch: "pa.RecordBatch") -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    fields = [pa.field(field.name, _binary(field.type)) for field in batch.schema]
    columns = [column.cast(field.type) for column, field in zip(batch.columns, fields, strict=True)]
    for row in pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)).to_pylist():
        yield {field.name: _decoded(row[field.name], field.type) for field in batch.schema}


def _binary(kind: Any) -> Any:
    """The type with bytes in the place of text."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_string(kind):
        return pa.binary()
    if kinds.is_large_string(kind):
        return pa.large_binary()
    if kinds.is_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _binary(kind.value_type)))
    if kinds.is_large_list(kind):
        return pa.large_list(pa.field(kind.value_field.name, _binary(kind.value_type)))
    if kinds.is_struct(kind):
        return pa.struct([pa.field(field.name, _binary(field.type)) for field in kind])
    return kind


def _decoded(value: Any, kind: Any) -> Any:
    """The value with text where its type has text."""
    import pyarrow.types as kinds

    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape") if kinds.is_string(kind) or kinds.is_large_string(kind) else value
    if isinstance(value, list):
        return [_decoded(item, kind.value_type) for item in value]
    if isinstance(value, dict):
        return {field.name: _decoded(value[field.name], field.type) for field in kind}
    return value
