"""One subset: every row read, checked, and kept in a Lance table or written to the ledger."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from components.core.artifacts import Number
from components.core.errors import InputError, IntegrityError
from components.core.progress import Progress, say
from components.core.store import ObjectStore
from components.core.tables import write_table
from components.data.conversations import Checked, Rules, identify
from components.data.images import CheckedImage, check_image
from components.data.ledger import Ledger
from components.data.refusal import Refusal
from components.data.sources.json_folder import JsonFolder

DATA = "data.lance"
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("roles", pa.list_(pa.string())),
        ("contents", pa.list_(pa.string())),
        ("images", pa.list_(pa.large_binary())),
        ("paths", pa.list_(pa.string())),
        ("sha256", pa.list_(pa.string())),
        ("widths", pa.list_(pa.int32())),
        ("heights", pa.list_(pa.int32())),
    ]
)
IMAGE_FIELDS = ("data", "path", "sha256", "width", "height")  # of CheckedImage, in the order of the columns
BATCH_ROWS = 1024
BATCH_BYTES = 1 << 26
AHEAD = 16  # rows in work per thread: enough to keep threads busy, few enough to bound the images held


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a row may have; None: any number."""

    max_images: int | None
    max_image_pixels: int
    max_image_bytes: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row that is kept."""

    number: int
    conversation: Checked
    images: list[CheckedImage]

    @property
    def bytes(self) -> int:
        """Size of its images."""
        return sum(len(image.data) for image in self.images)


def prepare_subset(
    store: ObjectStore, prefix: str, subset: str, source: JsonFolder, *, limits: Limits, workers: int
) -> dict[str, Number]:
    """Write `<prefix>/data.lance` and `<prefix>/ledger.parquet`; returns the counts for the manifest.

    Memory holds a batch of rows and a few rows per thread, whatever the subset's size.

    Raises:
        InputError: the source cannot be read, or no row of it can be used.
        IntegrityError: rows were lost on the way.
    """
    work = _Work(subset, source, limits, workers)
    written = write_table(store, f"{prefix}/{DATA}", SCHEMA, _batches(work.rows()))
    ledger = work.ledger
    if written != work.kept or written + ledger.dropped != work.read:
        raise IntegrityError(
            f"{subset}: {work.read} rows were read, but {written} written and {ledger.dropped} dropped.",
            remedy="Run it again; if it stays, report it.",
        )
    if not written:
        raise InputError(
            f"{source.file}: none of {work.read} rows can be used ({ledger.reasons()}).",
            remedy=_first_reason(ledger) or "Put rows into it.",
        )
    ledger.save(store, prefix)
    say(f"{subset}: {written:,} of {work.read:,} rows kept; ledger: {ledger.reasons()}")
    return {
        "rows": work.read,
        "kept": written,
        "dropped": ledger.dropped,
        "repaired": ledger.repaired,
        "images": work.images,
        "image_bytes": work.image_bytes,
    }


class _Work:
    """The pass over the source: rows in order, their images checked by threads ahead of them.

    Threads suffice: reading, decoding and hashing leave Python's lock.
    """

    def __init__(self, subset: str, source: JsonFolder, limits: Limits, workers: int) -> None:
        self._subset, self._source, self._limits, self._workers = subset, source, limits, workers
        self.ledger = Ledger()
        self.read = self.kept = self.images = self.image_bytes = 0

    def rows(self) -> Iterator[Row]:
        rules = Rules(max_images=self._limits.max_images)
        progress = Progress(label=f"prepare {self._subset}", total=None, unit="rows")

        def begin(number: int, raw: Any) -> Callable[[], Row]:
            # Here and not in a thread: which of two rows with one id comes first must not be left to chance.
            checked = rules.check(number, raw)
            return lambda: Row(number=number, conversation=checked, images=self._check_images(checked))

        for number, raw, outcome in _ahead(begin, enumerate(self._source.rows()), self._workers):
            self.read += 1
            progress.advance()
            try:
                row = outcome.result()
            except Refusal as refusal:
                self.ledger.drop(self._subset, number, identify(number, raw), refusal)
                continue
            for repair in row.conversation.repairs:
                self.ledger.repair(self._subset, number, row.conversation.id, repair)
            self.kept += 1
            self.images += len(row.images)
            self.image_bytes += row.bytes
            yield row

    def _check_images(self, checked: Checked) -> list[CheckedImage]:
        limits = self._limits
        return [
            check_image(
                path,
                self._source.read_image(path, max_bytes=limits.max_image_bytes),
                max_pixels=limits.max_image_pixels,
            )
            for path in checked.images
        ]


def _ahead(
    begin: Callable[[int, Any], Callable[[], Row]], rows: Iterable[tuple[int, Any]], workers: int
) -> Iterator[tuple[int, Any, Future[Row]]]:
    """Every row with the future of what `begin` gave for it, in order, AHEAD per worker in work at a time."""
    with ThreadPoolExecutor(workers) as pool:

        def submit(number: int, raw: Any) -> Future[Row]:
            try:
                return pool.submit(begin(number, raw))
            except Refusal as refusal:
                refused: Future[Row] = Future()
                refused.set_exception(refusal)
                return refused

        waiting: deque[tuple[int, Any, Future[Row]]] = deque()
        for number, raw in rows:
            waiting.append((number, raw, submit(number, raw)))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft()
        yield from waiting


def _batches(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += row.bytes
        if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield _batch(held)
            held, size = [], 0
    if held:
        yield _batch(held)


def _batch(rows: list[Row]) -> pa.RecordBatch:
    columns = [
        [row.number for row in rows],
        [row.conversation.id for row in rows],
        [[turn.role for turn in row.conversation.turns] for row in rows],
        [[turn.content for turn in row.conversation.turns] for row in rows],
        *([[getattr(image, name) for image in row.images] for row in rows] for name in IMAGE_FIELDS),
    ]
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _first_reason(ledger: Ledger) -> str:
    first = next((entry for entry in ledger.entries if entry.action == "dropped"), None)
    return f"The first one: row {first.row}, {first.reason}: {first.value}." if first else ""
