"""Reads single rows of a source, and shows what can be read of a refused one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.data.prepare.image_checks import check_image
from components.data.prepare.row_validator import RowLimits
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import ImageRef, NormalRow
from components.data.sources.source import RowSource, RowStream, Wanted
from components.data.sources.source_identity import Memory
from mantis.images.thumbnails import thumbnail
from mantis.showing.sample_view import MOST_IMAGES
from mantis.showing.shown_data import ShownFinding, ShownImage, ShownRow, ShownTurn

LONGEST_TEXT = 4_000  # characters of a turn, or of a row as JSON


@dataclass(frozen=True, kw_only=True)
class FirstRows:
    """The rows of a stream up to number `last`. See RowStream."""

    stream: RowStream
    last: int

    @property
    def url(self) -> str:
        return self.stream.url

    def read(self, wanted: Wanted) -> Iterator[Any]:
        for number, raw in enumerate(self.stream.read(wanted)):
            yield raw
            if number == self.last:
                return

    def count(self) -> int:
        return min(self.stream.count(), self.last + 1)

    def fingerprint(self, memory: Memory) -> str:
        return self.stream.fingerprint(memory)


def raw_rows(source: RowSource, numbers: frozenset[int]) -> dict[int, Any]:
    """Read the rows with these numbers, which count from 0. A number behind the last row is left out."""
    last = max(numbers, default=-1)
    rows = FirstRows(stream=source.rows, last=last).read(lambda number: number in numbers) if numbers else ()
    return {number: raw for number, raw in enumerate(rows) if number in numbers}


def refused_row(
    source: RowSource, number: int, name: str, raw: Any, *, findings: tuple[ShownFinding, ...], limits: RowLimits
) -> ShownRow:
    """Show a refused row: its turns and images as far as they can be read, else the row as JSON."""
    row = ShownRow(subset=source.name, row=number, id=name, dropped=True, findings=findings)
    try:
        normal = source.reader.read(raw)
    except RowRejected:
        return row.model_copy(update={"raw": _as_json(raw)})
    system, turns = _turns(normal)
    videos = [ShownImage(path=path, problem="a video, whose frames are not shown") for path in normal.videos]
    media = [*(_image(source, image, limits) for image in normal.images[:MOST_IMAGES]), *videos]
    images = tuple(media[:MOST_IMAGES])
    left_out = len(normal.images) + len(videos) - len(images)
    return row.model_copy(update={"system": system, "turns": turns, "images": images, "images_left_out": left_out})


def _turns(row: NormalRow) -> tuple[str, tuple[ShownTurn, ...]]:
    """The system text, and the turns. None of them is learned."""
    opening = row.turns[:1] if row.turns and row.turns[0].role == "system" else ()
    turns = tuple(
        ShownTurn(role=turn.role, content=_shortened(turn.content), learned=False) for turn in row.turns[len(opening) :]
    )
    return "".join(_shortened(turn.content) for turn in opening), turns


def _image(source: RowSource, image: ImageRef, limits: RowLimits) -> ShownImage:
    try:
        data = source.images.read(image.path, max_bytes=limits.max_image_bytes) if image.data is None else image.data
        checked = check_image(image.path, data, max_pixels=limits.max_image_pixels)
    except RowRejected as refusal:
        return ShownImage(path=image.path, problem=f"{refusal.reason}: {refusal.value}")
    return ShownImage(path=image.path, width=checked.width, height=checked.height, thumbnail=thumbnail(checked.data))


def _as_json(raw: Any) -> str:
    if isinstance(raw, RowRejected):
        return "The row cannot be read."
    return _shortened(json.dumps(raw, default=_described, ensure_ascii=False, indent=1))


def _described(value: Any) -> str:
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"


def _shortened(text: str) -> str:
    left = len(text) - LONGEST_TEXT
    return text if left <= 0 else f"{text[:LONGEST_TEXT]} … and {left:,} more characters"
