"""Reads rows of the published layout, `<split>-*.parquet`, one row group at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.data.sources.source import Wanted
from components.data.sources.source_identity import Memory, hash_files
from mantis.errors import InputError
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.range_file import open_range_file

if TYPE_CHECKING:
    import pyarrow as pa

ID, IMAGES, CONVERSATION = "id", "images", ("conversation", "conversations")
BATCH_ROWS = 64  # few, since rows may embed images
BUFFER = 1 << 22  # bytes of a column that are requested at once


@dataclass(frozen=True, kw_only=True)
class ParquetRows:
    """The rows of `files`, in the order of the files."""

    store: ObjectStore
    files: tuple[StoredObject, ...]

    @property
    def url(self) -> str:
        return self.store.uri(self.files[0].key)

    def read(self, wanted: Wanted) -> Iterator[Any]:
        first = 0
        for file in self.files:
            with self._open(file) as (parquet, columns):
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    needed = any(wanted(number) for number in range(first, first + count))
                    yield from _rows(parquet, group, columns if needed else [ID])
                    first += count

    def count(self) -> int:
        total = 0
        for file in self.files:
            with self._open(file) as (parquet, _):
                total += parquet.metadata.num_rows
        return total

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the files' SHA-256. A Parquet footer has no checksum of the data."""

        def hashed(file: StoredObject) -> str:
            return memory.recall("sha256", self.store, [file], lambda: hash_files(self.store, [file])[0])

        return fingerprint([hashed(file) for file in self.files])

    @contextmanager
    def _open(self, file: StoredObject) -> "Iterator[tuple[Any, list[str]]]":
        """Open a file. Yields it with the names of the columns to read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        origin = self.store.uri(file.key)
        try:
            with open_range_file(self.store, file.key) as raw, pq.ParquetFile(raw, buffer_size=BUFFER) as parquet:
                yield parquet, _columns(parquet.schema_arrow, origin)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{origin} cannot be read as Parquet: {error}.", remedy="Fetch the file again. It may be cut off."
            ) from None


def _columns(schema: "pa.Schema", origin: str) -> list[str]:
    import pyarrow.types as kinds

    conversation = next((name for name in CONVERSATION if name in schema.names), CONVERSATION[0])
    wanted = [ID, IMAGES, conversation]
    for name in wanted:
        if name not in schema.names:
            raise InputError(
                f"{origin} has no column {name!r}; its columns: {', '.join(schema.names)}.",
                remedy="Write the columns id, images and conversation (docs/how-to/bring-your-data.md).",
            )
    for name in (IMAGES, conversation):
        kind = schema.field(name).type
        if not (kinds.is_list(kind) or kinds.is_large_list(kind)):
            raise InputError(f"{origin}: the column {name!r} is {kind}, not a list.", remedy="Write it as a list.")
    return wanted


def _rows(parquet: Any, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError:
            yield from _rows_of_bytes(batch)


def _rows_of_bytes(batch: "pa.RecordBatch") -> Iterator[dict[str, Any]]:
    """Rows of a batch with text that is not UTF-8. Such bytes become lone surrogates, as in `read_list`."""
    import pyarrow as pa

    fields = [pa.field(field.name, _binary(field.type)) for field in batch.schema]
    columns = [column.cast(field.type) for column, field in zip(batch.columns, fields, strict=True)]
    for row in pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)).to_pylist():
        images = row.get(IMAGES)
        yield {name: images if name == IMAGES else _text(value) for name, value in row.items()} | (
            {IMAGES: [_image(image) for image in images]} if images else {}
        )


def _binary(kind: Any) -> Any:
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


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, list):
        return [_text(item) for item in value]
    if isinstance(value, dict):
        return {name: _text(item) for name, item in value.items()}
    return value


def _image(image: Any) -> Any:
    """Decode the path of an entry of `images`, and keep the image's bytes."""
    if isinstance(image, dict):
        return image | {"path": _text(image.get("path"))}
    return _text(image)
