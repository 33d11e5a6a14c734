"""The interface of a source of raw rows, for every layout and place.

A source combines a row stream (`JsonRows`, `ParquetRows`) with an image source (`FolderImages`, `ZipImages`).
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
        """URL of the file, or of the first of several files."""
        ...

    def read(self, wanted: Wanted) -> Iterator[Any]:
        """Yield every row in order. A row that is not wanted may hold its id alone.

        Raises:
            InputError: the file cannot be parsed as JSON or Parquet.
        """
        ...

    def count(self) -> int:
        """Number of rows. No image is read."""
        ...

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the rows' bytes. It does not depend on the place of the files."""
        ...


class ImageSource(Protocol):
    """Encoded images, looked up by the paths in the rows. Many threads may read at once."""

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Read the image's encoded bytes.

        Raises:
            RowRejected: the image is missing, outside of the source, damaged, or larger than `max_bytes`.
        """
        ...

    def fingerprint(self, memory: Memory, rows: RowStream) -> str:
        """Hash of every image that the paths of `rows` may read. It does not depend on the place of the files."""
        ...


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Size of a source: rows, and bytes of its files in the store."""

    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """One split of one subset. `stored_bytes()` sums up the sizes of its files."""

    name: str
    split: str
    rows: RowStream
    images: ImageSource
    stored_bytes: Callable[[], int]

    @property
    def url(self) -> str:
        """URL of the file with the rows, or of the first of several files."""
        return self.rows.url

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the rows and images. It is the same for a disk and a bucket."""
        return fingerprint(
            {"rows": self.rows.fingerprint(memory), "images": self.images.fingerprint(memory, self.rows)}
        )

    def extent(self) -> Extent:
        """Count rows and bytes. No image is read.

        Parquet footers and listings suffice. A JSON file must be read to count its rows.
        """
        return Extent(rows=self.rows.count(), bytes=self.stored_bytes())


def clean(path: str) -> str:
    """Normalize a relative path: remove `.` and `//`.

    Raises:
        RowRejected: the path leads out of its folder, is empty, or holds a NUL character.
    """
    if "\0" in path or not path:
        raise RowRejected("image-missing", value=path)
    plain = posixpath.normpath(path)
    if plain.startswith("/") or plain == ".." or plain.startswith("../"):
        raise RowRejected("image-outside", value=path)
    return plain
