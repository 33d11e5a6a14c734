"""Turns raw rows into checked rows, in order. Threads read and check the images of the next rows ahead."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from components.data.prepare.conversation_rules import Checked, ConversationRules, VideoRef, with_frames
from components.data.prepare.equal_rows import EqualRows, RowNames
from components.data.prepare.image_checks import CheckedImage, check_image
from components.data.prepare.ledger import LedgerEntry, dropped, repaired
from components.data.prepare.video_frames import read_frames
from components.data.sources.rejection import RowRejected, RowRepaired
from components.data.sources.rows.normal_row import ImageRef
from components.data.sources.source import RowSource, Wanted
from mantis.config.data_settings import DataSettings
from mantis.hashing import canonical_json
from mantis.progress import Progress
from mantis.store.parquet_file import ROW_BYTES

THREADS = 4  # per worker, since a thread that waits for a store needs no core
THREADS_ON_DISK = 1  # per worker: a disk answers at once, and more threads would only compete for the GIL
DIGEST_BYTES = 12  # of a row's content: two of a billion rows agree by chance once in 10^11 sets
AHEAD = 16  # rows in work per worker: enough to keep the threads busy, few enough to bound memory
AHEAD_BYTES = 1 << 28  # of the images of all rows in work

Named = tuple[str, tuple[RowRepaired, ...]]


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """Limits of a row. `max_images` None means no limit. `ignore` names keys that may hold anything."""

    max_images: int | None
    max_frames: int
    max_video_bytes: int
    ignore: frozenset[str]
    max_turn_characters: int
    max_image_pixels: int
    max_image_bytes: int


def limits_of(data: DataSettings, subset: str) -> RowLimits:
    """The limits that a recipe sets for the rows of a subset."""
    return RowLimits(
        max_images=data.subset(subset).max_images,
        max_frames=data.max_frames,
        max_video_bytes=data.max_video_bytes,
        ignore=frozenset(data.ignore),
        max_turn_characters=data.max_turn_characters,
        max_image_pixels=data.max_image_pixels,
        max_image_bytes=data.max_image_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class CheckedRow:
    """A row that is kept. `number` is its place in the source, from 0. `digest` is the hash of what training sees."""

    number: int
    conversation: Checked
    images: list[CheckedImage]
    digest: str

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


@dataclass(frozen=True, kw_only=True)
class RowInWork:
    """A row whose images a thread checks. `embedded` counts the bytes of images that the row itself holds."""

    number: int
    named: Named
    embedded: int
    work: Future[CheckedRow]


class RowValidator:
    """One pass over a source. `read` counts the rows that were read so far.

    `equals` has the numbers and digests of the rows that earlier attempts kept. `questions` says whether the rows are
    questions to a model: then equal rows are all kept. Threads suffice, since reading,
    decoding and hashing release the GIL.
    """

    def __init__(
        self,
        subset: str,
        source: RowSource,
        limits: RowLimits,
        workers: int,
        *,
        equals: Iterable[tuple[int, str]] = (),
        questions: bool = False,
    ) -> None:
        self._subset, self._source, self._limits = subset, source, limits
        self._threads = workers * (THREADS_ON_DISK if source.url.startswith("file:") else THREADS)
        self._ahead = workers * AHEAD
        self._rules = ConversationRules(
            max_images=limits.max_images, max_turn_characters=limits.max_turn_characters, ignore=limits.ignore
        )
        self._check = self._rules.check_question if questions else self._rules.check
        self._names, self._equals = RowNames(), None if questions else EqualRows(equals)
        self._held = _HeldBytes(self._threads)
        self.read = 0

    def outcomes(self, wanted: Wanted) -> Iterator[RowResult]:
        """Yield the result of every wanted row, in order. Of other rows, only the names are remembered."""
        progress = Progress(label=f"prepare {self._subset}", total=None, unit="rows")
        waiting: deque[RowInWork] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            for number, raw in enumerate(self._source.rows.read(wanted)):
                self.read += 1
                progress.advance()
                named = self._names.give(number, self._source.reader.id_of(raw))
                if not wanted(number):
                    continue
                waiting.append(self._begin(pool, number, named, raw))
                while len(waiting) > self._ahead or (waiting and self._held.expected > AHEAD_BYTES):
                    yield self._outcome(waiting.popleft())
            while waiting:
                yield self._outcome(waiting.popleft())

    def _begin(self, pool: ThreadPoolExecutor, number: int, named: Named, raw: Any) -> RowInWork:
        """Check the text, and start a thread for the images."""
        try:
            checked = self._check(named[0], self._source.reader.read(raw))
        except RowRejected as refusal:
            refused: Future[CheckedRow] = Future()
            refused.set_exception(refusal)
            return RowInWork(number=number, named=named, embedded=0, work=refused)
        embedded = sum(len(one.data) for one in checked.media if isinstance(one, ImageRef) and one.data is not None)
        self._held.begin(embedded)
        work = pool.submit(self._check_media, number, checked)
        return RowInWork(number=number, named=named, embedded=embedded, work=work)

    def _outcome(self, begun: RowInWork) -> RowResult:
        """The result of a row. It runs in the order of rows, so that of equal rows the first one is kept."""
        number, (name, renamed) = begun.number, begun.named
        self._held.release(begun.embedded)
        try:
            row = begun.work.result()
            self._held.release(row.bytes)
            if self._equals is not None:
                self._equals.check(number, row.digest)
        except RowRejected as refusal:
            return RowResult(row=None, number=number, ledger=(dropped(self._subset, number, name, refusal),))
        repairs = [*renamed, *row.conversation.repairs, *(image.repair for image in row.images if image.repair)]
        entries = tuple(repaired(self._subset, number, row.conversation.id, repair) for repair in repairs)
        return RowResult(row=row, number=number, ledger=entries)

    def _check_media(self, number: int, checked: Checked) -> CheckedRow:
        kept = 0
        try:
            row = self._with_media(number, checked)
            kept = row.bytes
            return row
        finally:
            self._held.finish(kept)

    def _with_media(self, number: int, checked: Checked) -> CheckedRow:
        images: list[CheckedImage] = []
        frames: list[int] = []
        for medium in checked.media:
            if isinstance(medium, ImageRef):
                data = self._bytes(medium)
                images.append(check_image(medium.path, data, max_pixels=self._limits.max_image_pixels))
            else:
                found = self._frames(medium)
                images += found
                frames.append(len(found))
            size = sum(len(image.data) for image in images)
            if size > ROW_BYTES:
                raise RowRejected("row-bytes", value=f"{size} bytes of images", threshold=str(ROW_BYTES))
        if frames:
            self._rules.require_few(len(images))
            repairs = [_as_frames(medium, count) for medium, count in zip(_videos(checked), frames, strict=True)]
            checked = replace(checked, turns=with_frames(checked.turns, frames), repairs=(*checked.repairs, *repairs))
        digest = _digest(checked, [image.sha256 for image in images])
        return CheckedRow(number=number, conversation=checked, images=images, digest=digest)

    def _frames(self, video: VideoRef) -> list[CheckedImage]:
        limits = self._limits
        frames = read_frames(
            self._source.images,
            video.path,
            count=limits.max_frames,
            max_bytes=limits.max_video_bytes,
            max_pixels=limits.max_image_pixels,
        )
        return [check_image(path, data, max_pixels=limits.max_image_pixels) for path, data in frames]

    def _bytes(self, image: ImageRef) -> bytes:
        limit = self._limits.max_image_bytes
        if image.data is None:
            return self._source.images.read(image.path, max_bytes=limit)
        if len(image.data) > limit:
            raise RowRejected("image-bytes", value=f"{image.path}: {len(image.data)}", threshold=str(limit))
        return image.data


def _videos(checked: Checked) -> list[VideoRef]:
    return [medium for medium in checked.media if isinstance(medium, VideoRef)]


def _as_frames(video: VideoRef, frames: int) -> RowRepaired:
    return RowRepaired(reason="video-frames", value=video.path, threshold=f"{frames} frames")


def _digest(checked: Checked, images: list[str]) -> str:
    """Hash of the text, the learned turns, the weight and the images' SHA-256: equal rows train the same."""
    content = canonical_json([[list(turn) for turn in checked.said], checked.weight, images])
    return blake2b(content.encode(), digest_size=DIGEST_BYTES).hexdigest()


class _HeldBytes:
    """Counts the bytes of images in memory, and expects those of rows in work from the mean of earlier rows."""

    def __init__(self, threads: int) -> None:
        self._lock, self._threads = threading.Lock(), threads
        self._held = self._working = self._finished = self._total = 0

    @property
    def expected(self) -> float:
        """Bytes when all rows in work are done. Before the first one is done, each thread may have one row."""
        with self._lock:
            mean = self._total / self._finished if self._finished else AHEAD_BYTES / self._threads
            return self._held + self._working * mean

    def begin(self, embedded: int) -> None:
        with self._lock:
            self._working += 1
            self._held += embedded

    def finish(self, kept: int) -> None:
        with self._lock:
            self._working -= 1
            self._finished += 1
            self._total += kept
            self._held += kept

    def release(self, size: int) -> None:
        with self._lock:
            self._held -= size
