"""Checks the columns of a table before its rows are read, so that an error names the file and not each row.

A row that is too large for memory becomes a refusal.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.row_reader import LIST_KEYS, RowReader
from mantis.errors import InputError
from mantis.store.parquet_file import RefusedRow

if TYPE_CHECKING:
    import pyarrow as pa


def check_columns(schema: "pa.Schema", origin: str, reader: RowReader) -> None:
    """Check that the table has the columns of a row form.

    Raises:
        InputError: it has no column that holds a conversation, that column is no list, or two columns have one name.
    """
    import pyarrow.types as kinds

    names = list(schema.names)
    if twice := _names_twice(schema):
        raise InputError(
            f"{origin} has two columns of the name {twice!r}.", remedy="Rename or remove one: a row has one value."
        )
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
        if not (kinds.is_null(kind) or _is_list(kind)):
            raise InputError(f"{origin}: the column {theirs!r} is {kind}, not a list.", remedy="Write it as a list.")


def row_or_refusal(found: dict[str, Any] | RefusedRow) -> dict[str, Any] | RowRejected:
    """The row of a table, or the reason why it is refused, which the check of the row raises."""
    if isinstance(found, RefusedRow):
        return RowRejected("row-bytes", value=found.value, threshold=found.threshold)
    return found


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def _names_twice(fields: "Iterable[pa.Field]") -> str:
    """The first name that two of the fields have, or two fields inside one of them; empty if there is none."""
    import pyarrow.types as kinds

    found = list(fields)
    for name, count in Counter(field.name for field in found).items():
        if count > 1:
            return str(name)
    for field in found:
        kind = field.type
        while _is_list(kind):
            kind = kind.value_type
        if kinds.is_struct(kind) and (twice := _names_twice(kind)):
            return f"{field.name}.{twice}"
    return ""
