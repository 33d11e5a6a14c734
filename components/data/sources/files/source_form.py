"""What a form of files is: which files hold rows in this form, and how the rows are read."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from components.data.sources.rows.row_reader import RowReader
from components.data.sources.source import RowStream
from components.data.sources.source_identity import Memory
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore, StoredObject


@dataclass(frozen=True, kw_only=True)
class SourceForm:
    """One form of files. Its module reads it.

    Args:
        name: the name in messages, in `data.format` and in docs/how-to/bring-your-data.md.
        suffixes: endings of the names of its files.
        recognises: whether a file with such a name has this form. It may read the file's beginning.
        open: the rows of some files, in their order.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[ObjectStore, StoredObject], bool]
    open: Callable[[ObjectStore, Sequence[StoredObject], RowReader], RowStream]

    def accepts(self, file: StoredObject) -> bool:
        """Whether the name of a file has one of the suffixes."""
        return file.key.lower().endswith(self.suffixes)


@dataclass(frozen=True, kw_only=True)
class FileRows:
    """The rows of `files`, in the order of the files. A form adds how it reads and counts them."""

    store: ObjectStore
    files: tuple[StoredObject, ...]
    reader: RowReader

    @property
    def url(self) -> str:
        """Address of the first file."""
        return self.store.uri(self.files[0].key)

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the files' SHA-256. Footers and headers have no checksum of the data."""
        return fingerprint(memory.hash_each(self.store, self.files))


def base_name(file: StoredObject) -> str:
    """The name of a file without its folder."""
    return file.key.rpartition("/")[2]


def by_number(name: str) -> list[str]:
    """Sort key that orders names by the numbers in them: 2 before 10."""
    return [part.zfill(20) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def always(store: ObjectStore, file: StoredObject) -> bool:
    """The suffix alone decides."""
    return True
