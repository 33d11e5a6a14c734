"""Writes a dataset in fragments of FRAGMENT_ROWS source rows, so that a killed step resumes where it was.

The record `<prefix>/fragments/<first row>.json` completes a fragment. A later attempt skips the rows of recorded
fragments. The table is committed once, at the end. The commit deletes files that a killed writer left in its folder.
"""

import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from types import TracebackType
from typing import Self

import pyarrow as pa
from pydantic import ValidationError

from components.data.prepare.ledger import LedgerEntry
from components.data.prepare.row_validator import CheckedRow, RowResult
from mantis.errors import IntegrityError
from mantis.hashing import canonical_json, fingerprint, sha256_bytes
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore, concurrently
from mantis.store.lance_tables import fragment_keys, withdraw_commit, write_fragments

FRAGMENT_ROWS = 1024  # about 100 MB of a published subset: a kill loses seconds of work, and files are not tiny
WRITERS = 2  # the store finishes one fragment while the next one fills
BATCH_ROWS = 1024
BATCH_BYTES = 1 << 23  # small, so that buffers are reused: to allocate memory costs more than to copy into it
AS_THEY_ARE = {"lance-encoding:compression": "none"}  # compression shrinks JPEGs by 5 % and takes most of the time
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("roles", pa.list_(pa.string())),
        ("contents", pa.list_(pa.string())),
        ("learned", pa.list_(pa.bool_())),
        ("weight", pa.float64()),
        ("images", pa.list_(pa.field("item", pa.large_binary(), metadata=AS_THEY_ARE))),
        ("paths", pa.list_(pa.string())),
        ("sha256", pa.list_(pa.string())),
        ("widths", pa.list_(pa.int32())),
        ("heights", pa.list_(pa.int32())),
        ("phashes", pa.list_(pa.binary())),
    ]
)
IMAGE_FIELDS = ("data", "path", "sha256", "width", "height", "phash")  # of CheckedImage, in the order of the columns


class Fragment(Versioned):
    """Result of `rows` source rows, beginning at row `first`. `table` is Lance's metadata of the kept rows.

    `equals` has the number of each kept row and the digest of its content, so that a later attempt finds equal rows.
    """

    form = Form.FRAGMENT
    schema_version: int = 2

    first: int
    rows: int
    kept: int
    images: int
    image_bytes: int
    content: str  # SHA-256 of the kept rows and of the ledger, in the order of the source
    ledger: tuple[LedgerEntry, ...]
    equals: tuple[tuple[int, str], ...]
    table: tuple[str, ...] = ()


def read_fragments(store: ObjectStore, prefix: str) -> dict[int, Fragment]:
    """Read the fragments that are recorded below `prefix`, by their first row.

    Raises:
        IntegrityError: a record cannot be parsed.
    """
    found = concurrently(lambda entry: _parse(store, entry.key), list(store.list(f"{prefix}/fragments")))
    return {fragment.first: fragment for fragment in found}


def content_of(fragments: Iterable[Fragment]) -> str:
    """Hash of a whole dataset and its ledger. `fragments` must be in the order of the source."""
    return fingerprint([fragment.content for fragment in fragments])


class FragmentWriter:
    """Writes fragments to the table at `key` in its own threads, and records each one below `prefix`."""

    def __init__(self, store: ObjectStore, prefix: str, key: str) -> None:
        withdraw_commit(store, key)  # an earlier attempt may have been killed between the commit and the manifest
        self._store, self._prefix, self._key = store, prefix, key
        self._pool = ThreadPoolExecutor(WRITERS)
        self._begun: list[tuple[_Feed, Future[Fragment]]] = []

    def write(self, first: int, outcomes: Iterable[RowResult]) -> None:
        """Write the rows of the fragment that begins at row `first`. Returns before the fragment is recorded.

        Raises:
            StoreError: the store refused this fragment or an earlier one.
        """
        for _, earlier in self._begun:
            if earlier.done():
                earlier.result()
        feed = _Feed()
        self._begun.append((feed, self._pool.submit(self._work, feed)))
        tally = _Tally(first)
        for batch in _batches(tally.kept(outcomes)):
            feed.put(batch)
        feed.put(tally.fragment())

    def finish(self) -> list[Fragment]:
        """Wait until every fragment is recorded, and return the records."""
        return [future.result() for _, future in self._begun]

    def _work(self, feed: "_Feed") -> Fragment:
        try:
            first = next(feed, None)
            written = () if first is None else write_fragments(self._store, self._key, SCHEMA, chain([first], feed))
        finally:
            for _ in feed:  # after an error, empty the feed, or the thread that fills it would wait without end
                pass
        fragment = feed.fragment.model_copy(update={"table": written})
        record = f"{self._prefix}/fragments/{fragment.first:012d}.json"
        files = fragment_keys(self._key, written)
        self._store.commit(record, fragment.model_dump_json().encode(), after=files)
        return fragment

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._begun:
            self._begun[-1][0].abort()
        self._pool.shutdown()


class _Aborted(Exception):  # noqa: N818 - ends a writer that will get no more rows
    pass


class _Feed:
    """Queue of batches for a writer's thread. The fragment's record ends it."""

    fragment: Fragment

    def __init__(self) -> None:
        self._queue: queue.Queue[pa.RecordBatch | Fragment | _Aborted] = queue.Queue(1)
        self._ended = False

    def put(self, item: pa.RecordBatch | Fragment) -> None:
        self._queue.put(item)

    def abort(self) -> None:
        self._queue.put(_Aborted())

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        if self._ended:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, Fragment):
            self.fragment = item
        self._ended = isinstance(item, Fragment | _Aborted)
        if isinstance(item, _Aborted):
            raise item
        if self._ended:
            raise StopIteration
        return item


class _Tally:
    """Counts and hashes the results of one fragment while they pass through."""

    def __init__(self, first: int) -> None:
        self._first, self._rows, self._images, self._bytes = first, 0, 0, 0
        self._equals: list[tuple[int, str]] = []
        self._ledger: list[LedgerEntry] = []
        # Hashed once, at the end. Each call of the hash releases the GIL, and the threads that decode images keep it
        # for milliseconds.
        self._content: list[str] = []

    def kept(self, outcomes: Iterable[RowResult]) -> Iterator[CheckedRow]:
        for outcome in outcomes:
            self._rows += 1
            for entry in outcome.ledger:
                self._ledger.append(entry)
                self._content.append(entry.line())
            if outcome.row is not None:
                self._equals.append((outcome.row.number, outcome.row.digest))
                self._images += len(outcome.row.images)
                self._bytes += outcome.row.bytes
                self._content.append(_line(outcome.row))
                yield outcome.row

    def fragment(self) -> Fragment:
        return Fragment(
            first=self._first,
            rows=self._rows,
            kept=len(self._equals),
            equals=tuple(self._equals),
            images=self._images,
            image_bytes=self._bytes,
            content=sha256_bytes("".join(self._content).encode()),
            ledger=tuple(self._ledger),
        )


def _line(row: CheckedRow) -> str:
    turns = [list(turn) for turn in row.conversation.said]
    images = [[image.path, image.sha256] for image in row.images]
    return canonical_json([row.number, row.conversation.id, turns, images, row.conversation.weight]) + "\n"


def _batches(rows: Iterable[CheckedRow]) -> Iterator[pa.RecordBatch]:
    held: list[CheckedRow] = []
    size = 0
    for row in rows:
        held.append(row)
        size += row.bytes
        if len(held) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield _batch(held)
            held, size = [], 0
    if held:
        yield _batch(held)


def _batch(rows: list[CheckedRow]) -> pa.RecordBatch:
    columns = [
        [row.number for row in rows],
        [row.conversation.id for row in rows],
        *([[turn[place] for turn in row.conversation.said] for row in rows] for place in range(3)),  # said
        [row.conversation.weight for row in rows],
        *([[getattr(image, name) for image in row.images] for row in rows] for name in IMAGE_FIELDS),
    ]
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _parse(store: ObjectStore, key: str) -> Fragment:
    try:
        return Fragment.model_validate_json(store.get(key), context=origin(store.uri(key)))
    except ValidationError as error:
        raise IntegrityError(
            f"{store.uri(key)} is no record of a fragment: {error.errors()[0]['msg']}.",
            remedy="Delete the object and run the step again. It prepares these rows again.",
        ) from None
