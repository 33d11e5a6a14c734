"""The interface of a source of raw rows, for every layout and place.

A source combines a row stream (`files/`), the form of its rows (`rows/`) and an image source (`images/`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from components.data.sources.images.image_names import leads_up
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.row_reader import RowReader
from components.data.sources.source_identity import Memory, NamedPaths
from mantis.hashing import fingerprint

TRAIN = "train"
SHOWN = 3  # names of files in a message
NAMED_REVISION = 1  # of the paths that a reader finds in the same rows; the memory keeps them
Wanted = Callable[[int], bool]


class RowStream(Protocol):
    """Raw rows in a fixed order."""

    @property
    def url(self) -> str:
        """URL of the file, or of the first of several files."""
        ...

    def read(self, wanted: Wanted) -> Iterator[Any]:
        """Yield every row in order. A row that is not wanted may hold its id alone.

        A row that is too large for memory is a RowRejected, with the reason.

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

    def fingerprint(self, memory: Memory, named: NamedPaths) -> str:
        """Hash of every image that the named paths may read. It does not depend on the place of the files."""
        ...


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Size of a source: rows, and bytes of its files in the store."""

    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """One split of one subset.

    Args:
        form: name of the form of its files.
        others: finds the names of files beside them, and in folders below, that hold rows and belong to no split.
        reader: reads the rows, whatever their form.
        stored_bytes: sums up the sizes of its files.
    """

    name: str
    split: str
    form: str
    rows: RowStream
    reader: RowReader
    images: ImageSource
    stored_bytes: Callable[[], int]
    others: Callable[[], Sequence[str]] = tuple

    @property
    def url(self) -> str:
        """URL of the file with the rows, or of the first of several files."""
        return self.rows.url

    def fingerprint(self, memory: Memory) -> str:
        """Hash of the rows and images. It is the same for a disk and a bucket."""
        rows = self.rows.fingerprint(memory)
        return fingerprint({"rows": rows, "images": self.images.fingerprint(memory, self._named(memory, rows))})

    def described(self) -> str:
        """The form that was found: that of the files, and that of the first row; and files that are left out."""
        left = self.others()
        return self._forms() + (f"; not read: {listed(left)}" if left else "")

    def _forms(self) -> str:
        first = next(iter(self.rows.read(lambda number: number == 0)), None)
        if first is None:
            return f"{self.form} without rows"
        try:
            return f"{self.form} with rows of the form {self.reader.read(first).form}"
        except RowRejected as refusal:
            return f"{self.form}; row 0 is refused ({refusal.reason})"

    def _named(self, memory: Memory, rows: str) -> NamedPaths:
        """The paths that the rows name. `rows` is the hash of the rows."""
        form = self.reader.form.name if self.reader.form is not None else ""
        reader = [form, dict(self.reader.columns), dict(self.reader.roots), self.reader.questions]
        state = ("named paths", NAMED_REVISION, rows, self.form, *reader)
        return NamedPaths(
            state=state,
            every=lambda: frozenset(memory.remember_names(state, self._paths)),
            upward=lambda: frozenset(
                memory.remember_names([*state, "upward"], lambda: filter(leads_up, self._paths()))
            ),
        )

    def _paths(self) -> frozenset[str]:
        """Every path that a row names. Embedded images are not listed, since the hash of the rows covers them."""
        return frozenset(path for raw in self.rows.read(lambda _: True) for path in self.reader.files(raw))

    def extent(self) -> Extent:
        """Count rows and bytes. No image is read.

        Parquet footers and listings suffice. A JSON file must be read to count its rows.
        """
        return Extent(rows=self.rows.count(), bytes=self.stored_bytes())


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others, for a message."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
