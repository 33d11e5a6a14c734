"""What a source of raw rows offers, whatever its layout and wherever it lies.

A source is a kind of rows (`JsonRows`, `ParquetRows`) and a kind of images (`FolderImages`, `ZipImages`).
"""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory
from mantis.hashing import fingerprint

TRAIN = "train"
Wanted = Callable[[int], bool]


class RowStream(Protocol):
    """Raw rows in a fixed order."""

    @property
    def url(self) -> str:
        """The file, or the first of several."""
        ...

    def read(self, wanted: Wanted) -> Iterator[Any]:
        """Every row in order; one whose number is not wanted may come with nothing but its id.

        Raises:
            InputError: the file cannot be read as what it claims to be.
        """
        ...

    def count(self) -> int:
        """How many rows there are; no image is read."""
        ...

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the rows' bytes, the same wherever they lie."""
        ...


class ImageSource(Protocol):
    """Encoded images by the paths that rows name; safe to use from many threads."""

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The image's bytes.

        Raises:
            Refusal: missing, outside of the source, broken on the way, or of more than `max_bytes`.
        """
        ...

    def fingerprint(self, memory: Memory, rows: RowStream) -> str:
        """Hash of what `read` can give for the paths of `rows`, the same wherever it lies."""
        ...


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a source holds: rows, and bytes of its files as they are stored."""

    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """One split of one subset; `stored_bytes` is the size of every file that belongs to it."""

    name: str
    split: str
    rows: RowStream
    images: ImageSource
    stored_bytes: Callable[[], int]

    @property
    def url(self) -> str:
        """The file with the rows, or the first of several."""
        return self.rows.url

    def fingerprint(self, memory: Memory) -> str:
        """Hash of all that is read of this source; from a disk and from a bucket the same."""
        return fingerprint(
            {"rows": self.rows.fingerprint(memory), "images": self.images.fingerprint(memory, self.rows)}
        )

    def extent(self) -> Extent:
        """Rows and bytes, from Parquet footers and listings; JSON has to be read to be counted. No image is read."""
        return Extent(rows=self.rows.count(), bytes=self.stored_bytes())


def clean(path: str) -> str:
    """`path` without `.` and `//`, relative to the folder it is looked up in.

    Raises:
        Refusal: it leads out of that folder, or can be no file's name.
    """
    if "\0" in path or not path:
        raise RowRejected("image-missing", value=path)
    plain = posixpath.normpath(path)
    if plain.startswith("/") or plain == ".." or plain.startswith("../"):
        raise RowRejected("image-outside", value=path)
    return plain
