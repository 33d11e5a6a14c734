"""Reads rows from a JSON file that holds a list of conversations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.data.sources.json_stream import read_list
from components.data.sources.source import Wanted
from components.data.sources.source_identity import Memory, hash_files
from mantis.errors import InputError
from mantis.store.base import ObjectStore, StoredObject
from mantis.store.range_file import stream

PREFERRED = "train.json"


@dataclass(frozen=True, kw_only=True)
class JsonRows:
    """The rows of the only file in `files`."""

    store: ObjectStore
    folder: str
    files: tuple[StoredObject, ...]

    @property
    def file(self) -> StoredObject:
        """The JSON file that holds the rows.

        Raises:
            InputError: the folder holds several JSON files and none is `train.json`.
        """
        if len(self.files) != 1:
            names = ", ".join(file.key.rpartition("/")[2] for file in self.files)
            raise InputError(
                f"{self.store.uri(self.folder)} holds several JSON files with rows: {names}.",
                remedy=f"Rename the file to read to {PREFERRED}.",
            )
        return self.files[0]

    @property
    def url(self) -> str:
        return self.store.uri(self.file.key)

    def read(self, wanted: Wanted) -> Iterator[Any]:
        with stream(self.store, self.file.key) as file:
            yield from read_list(file, self.url)

    def count(self) -> int:
        return sum(1 for _ in self.read(lambda _: False))

    def fingerprint(self, memory: Memory) -> str:
        return memory.recall("sha256", self.store, [self.file], lambda: hash_files(self.store, [self.file])[0])
