"""Checks the columns of a table before its rows are read, so that an error names the file and not each row."""

from typing import TYPE_CHECKING

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.row_reader import LIST_KEYS, RowReader
from mantis.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def check_columns(schema: "pa.Schema", origin: str, reader: RowReader) -> None:
    """Check that the table has the columns of a row form.

    Raises:
        InputError: it has no column that holds a conversation, or that column is no list.
    """
    import pyarrow.types as kinds

    names = list(schema.names)
    absent = [f"{ours}: {theirs}" for ours, theirs in reader.row_columns.items() if theirs not in names]
    if absent:
        raise InputError(
            f"{origin} has no column for data.columns = {', '.join(absent)}; its columns: {', '.join(names)}.",
            remedy="Name columns of the file in data.columns.",
        )
    try:
        form = reader.form_of_columns(field.name for field in schema if not kinds.is_null(field.type))
    except RowRejected as refusal:
        raise InputError(
            f"{origin} has no column that holds a conversation; its columns: {', '.join(names)}.",
            remedy=f"Write {refusal.threshold} (docs/how-to/bring-your-data.md).",
        ) from None
    for ours in form.marks:
        theirs = reader.row_columns.get(ours, ours)
        if ours not in LIST_KEYS or theirs not in names:
            continue
        kind = schema.field(theirs).type
        if not (
            kinds.is_null(kind) or kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        ):
            raise InputError(f"{origin}: the column {theirs!r} is {kind}, not a list.", remedy="Write it as a list.")
