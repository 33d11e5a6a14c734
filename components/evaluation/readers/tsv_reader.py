"""Reads a TSV file of VLMEvalKit: a row per line, with images as base64 text.

A cell `image` is one image, or a list of images as Python text. A short cell is the `index` of an earlier row with the
same images (open-compass/VLMEvalKit, vlmeval/dataset/image_base.py).
"""

import base64
import binascii
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from components.evaluation.readers.raw import Raw
from mantis.errors import InputError

IMAGE, INDEX = "image", "index"
COUNT = "image_count"  # the column that is added: the number of images
LONGEST_REFERENCE = 64  # characters; a longer cell is an image
ROW_CHARACTERS = 128 << 20  # of one cell; a row of Parquet has the same limit in bytes


def raw_rows(folder: Path, files: tuple[str, ...], *, pictures: bool) -> Iterator[Raw]:
    """Yield every row of the files, with `image` as a list of bytes, and `image_count`.

    A row whose images cannot be decoded is missing (`image-unreadable`).

    Raises:
        InputError: a file cannot be read as TSV, or lacks the columns `index` and `image`.
    """
    csv.field_size_limit(ROW_CHARACTERS)
    for name in files:
        path = folder / name
        try:
            with path.open(encoding="utf-8", newline="") as file:
                yield from _rows(file, path, pictures=pictures)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as TSV: {error}.", remedy="Fetch the file again.") from None


def _rows(file: TextIO, path: Path, *, pictures: bool) -> Iterator[Raw]:
    lines = _Lines(file)
    parsed = csv.reader(lines, delimiter="\t")
    header = next(parsed, [])
    lacking = [name for name in (INDEX, IMAGE) if name not in header]
    if lacking:
        raise InputError(
            f"{path} has no column {', '.join(lacking)}; it has {', '.join(header)}.", remedy="Fetch the file again."
        )
    starts: dict[str, int] = {}
    lines.start = lines.end
    for number, cells in enumerate(parsed):
        row: dict[str, Any] = dict(zip(header, cells, strict=False))
        starts[row.get(INDEX, "")] = lines.start
        lines.start = lines.end
        cell = _resolved(row.get(IMAGE, ""), starts, path, header)
        texts = _items(cell)
        images = [_decoded(text) for text in texts] if pictures else []
        missing = "" if texts and None not in images else "image-unreadable"
        yield Raw(origin=f"{path}, row {number}", row={**row, IMAGE: images, COUNT: len(texts)}, missing=missing)


class _Lines:
    """The lines of a file, with the place where the current row starts and where the read lines end."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.start, self.end = file, 0, 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(ROW_CHARACTERS)
        if not line:
            raise StopIteration
        self.end = self._file.tell()
        return line


def _resolved(cell: str, starts: dict[str, int], path: Path, header: list[str]) -> str:
    """The cell itself, or the cell of the earlier row that it names."""
    if len(cell) > LONGEST_REFERENCE or cell not in starts:
        return cell
    with path.open(encoding="utf-8", newline="") as file:
        file.seek(starts[cell])
        row = dict(zip(header, next(csv.reader(_Lines(file), delimiter="\t")), strict=False))
    return row.get(IMAGE, "")


def _items(cell: str) -> list[str]:
    """The images of a cell as base64. Base64 has neither commas nor quotes, so the list needs no parser."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell] if cell else []
    return [item.strip().strip("'\"") for item in cell[1:-1].split(",") if item.strip()]


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
