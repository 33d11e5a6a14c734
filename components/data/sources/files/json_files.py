"""The rows of JSON files of any form. A file that ends with .gz is decompressed while it is read."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from components.data.sources.files.source_form import base_name, by_number
from components.data.sources.source import Wanted
from components.data.sources.source_identity import Memory
from mantis.errors import InputError
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.range_file import stream

BEGINNING = 1 << 16  # bytes of a JSON file that are read to see its form
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)

Parse = Callable[[IO[bytes], str], Iterator[Any]]


@dataclass(frozen=True, kw_only=True)
class JsonRows:
    """The rows of `files`: one file, or the shards of one, whose names differ in their numbers alone."""

    store: ObjectStore
    files: tuple[StoredObject, ...]
    parse: Parse

    @property
    def url(self) -> str:
        return self.store.uri(self._shards()[0].key)

    def read(self, wanted: Wanted) -> Iterator[Any]:
        for file in self._shards():
            origin = self.store.uri(file.key)
            try:
                with stream(self.store, file.key) as raw:
                    yield from self.parse(unpacked(file.key, raw), origin)
            except GZIP_ERRORS as error:
                raise InputError(
                    f"{origin} cannot be decompressed: {error}.", remedy="Fetch the file again. It may be cut off."
                ) from None

    def count(self) -> int:
        return sum(1 for _ in self.read(lambda _: False))

    def fingerprint(self, memory: Memory) -> str:
        found = memory.hash_each(self.store, self._shards())
        return found[0] if len(found) == 1 else fingerprint(found)

    def _shards(self) -> tuple[StoredObject, ...]:
        """The files in their order.

        Raises:
            InputError: they are not the shards of one file.
        """
        if len({re.sub(r"\d+", "#", base_name(file)) for file in self.files}) != 1:
            folder = self.store.uri(self.files[0].key).rpartition("/")[0]
            raise InputError(
                f"{folder} holds several JSON files with rows: {', '.join(map(base_name, self.files))}.",
                remedy="Rename the file to read to train.json, or to train with its own suffix.",
            )
        return tuple(sorted(self.files, key=lambda file: by_number(base_name(file))))


def unpacked(key: str, file: IO[bytes]) -> IO[bytes]:
    """The file; decompressed if its name ends with .gz."""
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if key.endswith(".gz") else file


def beginning(store: ObjectStore, file: StoredObject) -> str:
    """The first characters of a file, without blanks; empty if it cannot be decompressed."""
    with stream(store, file.key) as raw:
        try:
            data = unpacked(file.key, raw).read(BEGINNING) if file.key.endswith(".gz") else None
        except (*GZIP_ERRORS, OSError):
            return ""
    data = store.get_range(file.key, 0, BEGINNING) if data is None else data
    return data.decode("utf-8-sig", errors="replace").lstrip()
