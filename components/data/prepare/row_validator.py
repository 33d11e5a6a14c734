"""Turns raw rows into checked rows, in order. Threads read and check the images of the next rows ahead."""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from components.data.prepare.conversation_rules import Checked, ConversationRules
from components.data.prepare.image_checks import CheckedImage, check_image
from components.data.prepare.ledger import LedgerEntry, dropped, repaired
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import ImageRef
from components.data.sources.source import RowSource, Wanted
from mantis.progress import Progress

THREADS = 4  # per worker, since a thread that waits for a store needs no core
THREADS_ON_DISK = 1  # per worker: a disk answers at once, and more threads would only compete for the GIL
AHEAD = 16  # rows in work per worker: enough to keep the threads busy, few enough to bound memory


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """Limits of a row. `max_images` None means no limit."""

    max_images: int | None
    max_turn_characters: int
    max_image_pixels: int
    max_image_bytes: int


@dataclass(frozen=True, kw_only=True)
class CheckedRow:
    """A row that is kept. `number` is its place in the source, from 0."""

    number: int
    conversation: Checked
    images: list[CheckedImage]

    @property
    def bytes(self) -> int:
        """Bytes of all images together."""
        return sum(len(image.data) for image in self.images)


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """Result of one row: the checked row, or None if it was dropped, and its ledger entries."""

    row: CheckedRow | None
    number: int
    ledger: tuple[LedgerEntry, ...]


class RowValidator:
    """One pass over a source. `read` counts the rows that were read so far.

    Threads suffice, since reading, decoding and hashing release the GIL.
    """

    def __init__(self, subset: str, source: RowSource, limits: RowLimits, workers: int) -> None:
        self._subset, self._source, self._limits = subset, source, limits
        self._threads = workers * (THREADS_ON_DISK if source.url.startswith("file:") else THREADS)
        self._ahead = workers * AHEAD
        self._rules = ConversationRules(
            max_images=limits.max_images, max_turn_characters=limits.max_turn_characters, reader=source.reader
        )
        self.read = 0

    def outcomes(self, wanted: Wanted) -> Iterator[RowResult]:
        """Yield the result of every wanted row, in order. Of other rows, only the ids are remembered."""
        progress = Progress(label=f"prepare {self._subset}", total=None, unit="rows")
        waiting: deque[tuple[int, Any, Future[CheckedRow]]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            for number, raw in enumerate(self._source.rows.read(wanted)):
                self.read += 1
                progress.advance()
                if not wanted(number):
                    self._meet(number, raw)
                    continue
                waiting.append((number, raw, self._begin(pool, number, raw)))
                if len(waiting) > self._ahead:
                    yield self._outcome(*waiting.popleft())
            while waiting:
                yield self._outcome(*waiting.popleft())

    def _begin(self, pool: ThreadPoolExecutor, number: int, raw: Any) -> Future[CheckedRow]:
        """Check the text, and start a thread for the images.

        The text check runs in this thread, in order. So of two rows with one id, the first one always wins.
        """
        try:
            checked = self._rules.check(number, raw)
        except RowRejected as refusal:
            refused: Future[CheckedRow] = Future()
            refused.set_exception(refusal)
            return refused
        return pool.submit(self._check_images, number, checked)

    def _meet(self, number: int, raw: Any) -> None:
        with contextlib.suppress(RowRejected):  # the row's fragment already recorded the reason in its ledger
            self._rules.meet(number, raw)

    def _outcome(self, number: int, raw: Any, work: Future[CheckedRow]) -> RowResult:
        try:
            row = work.result()
        except RowRejected as refusal:
            entry = dropped(self._subset, number, self._source.reader.identify(number, raw), refusal)
            return RowResult(row=None, number=number, ledger=(entry,))
        repairs = [*row.conversation.repairs, *(image.repair for image in row.images if image.repair)]
        entries = tuple(repaired(self._subset, number, row.conversation.id, repair) for repair in repairs)
        return RowResult(row=row, number=number, ledger=entries)

    def _check_images(self, number: int, checked: Checked) -> CheckedRow:
        limits = self._limits
        images = [
            check_image(image.path, self._bytes(image), max_pixels=limits.max_image_pixels) for image in checked.images
        ]
        return CheckedRow(number=number, conversation=checked, images=images)

    def _bytes(self, image: ImageRef) -> bytes:
        limit = self._limits.max_image_bytes
        if image.data is None:
            return self._source.images.read(image.path, max_bytes=limit)
        if len(image.data) > limit:
            raise RowRejected("image-bytes", value=f"{image.path}: {len(image.data)}", threshold=str(limit))
        return image.data
