"""The rows of JSON files of any form. A gzip file is decompressed while it is read, whatever its name."""

import codecs
import gzip
import io
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
GZIP = b"\x1f\x8b"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
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
                    text = unpacked(raw)
                    _require_utf8(text.peek(len(codecs.BOM_UTF16_LE)), origin)
                    yield from self.parse(cast("IO[bytes]", text), origin)
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


def unpacked(file: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    """The file; decompressed if it is a gzip file."""
    return gzip.GzipFile(fileobj=file) if file.peek(len(GZIP)).startswith(GZIP) else file


def beginning(store: ObjectStore, file: StoredObject, most: int = BEGINNING) -> str:
    """The first characters of a file, of `most` bytes, without blanks; empty if it cannot be decompressed."""
    data = store.get_range(file.key, 0, most)
    if data.startswith(GZIP):
        with stream(store, file.key) as raw:
            try:
                data = unpacked(raw).read(most)
            except (*GZIP_ERRORS, OSError):
                return ""
    return data.decode("utf-8-sig", errors="replace").lstrip()


def _require_utf8(beginning: bytes, origin: str) -> None:
    """Raise InputError if a file begins with the mark of another encoding."""
    if beginning.startswith(UTF_16):
        raise InputError(f"{origin} is UTF-16, not UTF-8.", remedy="Write the file as UTF-8.")
