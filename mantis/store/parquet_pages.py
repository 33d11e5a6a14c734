"""A file object for Parquet readers that checks the header of each page before it hands out the page.

A page header states how many bytes its page holds after decompression. Arrow allocates them unchecked, and a file of
some kilobytes can state gigabytes. The footer's totals do not help, because no reader compares them with the pages.

Format: PageHeader of the Parquet specification (apache/parquet-format, parquet.thrift), in Thrift's compact protocol.
"""

import io
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mantis.store.parquet_indices import entry_lengths, skip_levels, written_out

PAGE_BYTES: Final = 512 << 20  # memory for the pages of all columns that are read at once
DICTIONARY_COPIES: Final = 5  # the page, Arrow's growing table of its values, the dictionary and a slice of a batch
REPEATED_BYTES: Final = 64 << 20  # that a page may have written out, beyond the bytes of its dictionary
SMALL_DICTIONARY: Final = 1 << 16  # bytes; the indices of its pages need no look if they cannot name many bytes
SMALL_PAGE: Final = 1 << 20  # bytes that the values of such a page may have at most
PAGE_VALUES: Final = 1 << 24  # values of one page, and of one column in one batch
WINDOW: Final = 1 << 22  # bytes of one request for a column
FIRST_HEADER, LONGEST_HEADER = 1 << 12, 1 << 24  # bytes; a header may hold statistics
DEEPEST = 8  # nested structs of a header
DELTA_BYTE_ARRAY = 7  # this encoding shares prefixes, so that values can be far larger than their page
INDICES = (2, 8)  # PLAIN_DICTIONARY and RLE_DICTIONARY
CODECS = {"LZ4": "lz4_raw"}  # names of pyarrow.Codec that differ from those of the footer
RLE = 3  # the encoding of levels; the older BIT_PACKED has no length


class PageKind(IntEnum):
    """The field `type` of a page header."""

    DATA = 0
    INDEX = 1
    DICTIONARY = 2
    DATA_V2 = 3


@dataclass(frozen=True, kw_only=True)
class PageHeader:
    """Header of `length` bytes. The sizes of the page behind it are in bytes."""

    kind: int
    uncompressed: int
    compressed: int
    values: int
    encoding: int
    length: int
    details: dict[int, Any]


class PageRefused(Exception):  # noqa: N818 - a result of the check; the reader turns it into an error with a remedy
    """A page breaks a limit. The message names the column and the number."""


class BatchTooLarge(Exception):  # noqa: N818 - tells the reader to take fewer rows at once
    """The pages of one batch hold more bytes or values than the batch may need."""


class ValuesRepeated(Exception):  # noqa: N818 - tells the reader to keep the dictionary
    """A page names the values of its dictionary so often that they must not be written out."""


class ReadRange(Protocol):
    """Reads bytes by position; the result is shorter only at the end of the file."""

    def __call__(self, start: int, length: int, /) -> bytes: ...


@dataclass(kw_only=True)
class ColumnChunk:
    """The place of one column's pages in the file, and the sizes of the pages that were met so far."""

    path: str
    start: int
    end: int
    codec: str
    levels: int  # kinds of levels: definition, repetition
    written_out: bool  # whether the reader writes out the values of a dictionary; else it keeps their indices
    next: int = field(init=False)
    dictionary: int = 0  # memory while the dictionary is read, or while it is in use
    dictionary_held: int = 0
    page: int = 0
    values: int = 0  # of the current batch
    dictionary_page: tuple[int, PageHeader] | None = None  # its place and header, if its values are written out
    lengths: NDArray[np.int64] | None = None  # of the entries of the dictionary, once they are needed
    window: tuple[int, bytes] = (0, b"")
    large: tuple[int, bytes] = (0, b"")  # a page that the check has read, until the reader takes it

    def __post_init__(self) -> None:
        self.next = self.start

    @property
    def memory(self) -> int:
        """Bytes that a reader of this column needs at most, for its dictionary and its largest page."""
        return max(self.dictionary, self.dictionary_held + self.page)

    def take(self, start: int, length: int) -> memoryview | None:
        """Hand over the bytes of the large page at a place, once; None if it does not hold them."""
        first, data = self.large
        if not first <= start <= start + length <= first + len(data):
            return None
        self.large = (0, b"")
        return memoryview(data)[start - first : start - first + length]


class PageGuard(io.RawIOBase):
    """Read-only file of `size` bytes that `read_range` reads. `watch` names the column chunks to check.

    Reading raises PageRefused or BatchTooLarge before a reader gets the page in question.
    """

    def __init__(self, size: int, read_range: ReadRange) -> None:
        super().__init__()
        self._size, self._read_range, self._position = size, read_range, 0
        self._chunks: list[ColumnChunk] = []  # in the order of the file
        self._starts: list[int] = []
        self._batch_bytes = self._largest = self._limit = 0

    def watch(self, chunks: Sequence[ColumnChunk]) -> None:
        """Check the pages of `chunks` from now on."""
        self._chunks = sorted(chunks, key=lambda chunk: chunk.start)
        self._starts = [chunk.start for chunk in self._chunks]

    def begin_batch(self, limit: int) -> None:
        """Allow `limit` bytes of data pages until the next call, and the largest of these pages beside them.

        The largest page may hold the values of other rows, too.
        """
        self._batch_bytes, self._largest, self._limit = 0, 0, limit
        for chunk in self._chunks:
            chunk.values = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes | memoryview:
        """Read up to `size` bytes, in one piece, so that a large page exists once in this process."""
        left = max(0, self._size - self._position)
        length = left if size is None or size < 0 else min(size, left)
        start, self._position = self._position, self._position + length
        touched = list(self._touched(start, start + length))
        for chunk in touched:
            self._check(chunk, start + length)
        if touched and touched[0].start <= start:
            if (page := touched[0].take(start, length)) is not None:
                return page
            if length < WINDOW:
                return self._within(touched[0], start, length)
        return self._read_range(start, length)

    def _touched(self, start: int, end: int) -> Iterator[ColumnChunk]:
        """The chunks with bytes between two places of the file."""
        for chunk in self._chunks[max(0, bisect_right(self._starts, start) - 1) :]:
            if chunk.start >= end:
                break
            if chunk.end > start:
                yield chunk

    def _within(self, chunk: ColumnChunk, start: int, length: int) -> memoryview:
        """Read from the chunk's window, which a request fills in advance. A larger read is kept for the reader."""
        if length >= WINDOW:
            chunk.large = start, self._read_range(start, length)
            return memoryview(chunk.large[1])
        first, data = chunk.window
        if not (first <= start and start + length <= first + len(data)):
            self._fill(chunk, start, length)
            first, data = chunk.window
        return memoryview(data)[start - first : start - first + length]

    def _fill(self, chunk: ColumnChunk, start: int, length: int) -> None:
        """Fill the window of a chunk, and those of the small chunks behind it, with one request."""
        end, filled = chunk.end, [chunk]
        for other in self._chunks[bisect_right(self._starts, chunk.start) :]:
            if other.start != end or other.end > start + WINDOW:
                break
            end = other.end
            filled.append(other)
        window = start, self._read_range(start, max(length, min(WINDOW, end - start)))
        for one in filled:
            one.window = window

    def _check(self, chunk: ColumnChunk, end: int) -> None:
        """Check every page of the chunk that begins before `end`."""
        while chunk.next < min(end, chunk.end):
            header = self._header(chunk)
            self._admit(chunk, header)
            chunk.next += header.length + header.compressed

    def _header(self, chunk: ColumnChunk) -> PageHeader:
        length = FIRST_HEADER
        while True:
            data = self._within(chunk, chunk.next, min(length, self._size - chunk.next))
            try:
                return parse_page_header(data)
            except IndexError:
                if length >= LONGEST_HEADER or len(data) < length:
                    raise PageRefused(f"column {chunk.path}: a page header is cut off") from None
            length *= 8

    def _admit(self, chunk: ColumnChunk, header: PageHeader) -> None:
        where = f"column {chunk.path}"
        if min(header.uncompressed, header.compressed, header.values) < 0:
            raise PageRefused(f"{where}: a page header is damaged")
        if header.values > PAGE_VALUES:
            raise PageRefused(f"{where}: a page of {header.values:,} values, more than {PAGE_VALUES:,}")
        if header.encoding == DELTA_BYTE_ARRAY:
            raise PageRefused(f"{where}: the encoding DELTA_BYTE_ARRAY, which has no bound")
        # The bytes as read and Arrow's copy of them, then that copy and the page.
        read = header.compressed + max(header.compressed, header.uncompressed)
        if header.kind == PageKind.DICTIONARY:
            copies = 1 if chunk.written_out else DICTIONARY_COPIES
            chunk.dictionary, chunk.dictionary_held = read, copies * header.uncompressed
        else:
            chunk.page = max(chunk.page, read)
        needed = sum(one.memory for one in self._chunks)
        if needed > PAGE_BYTES:
            size = max(header.uncompressed, header.compressed)
            raise PageRefused(
                f"{where}: a page of {size >> 20:,} MiB; the pages read together need {needed >> 20:,} MiB, more than "
                f"{PAGE_BYTES >> 20:,}"
            )
        if header.kind == PageKind.DICTIONARY:
            chunk.dictionary_page, chunk.lengths = (chunk.next, header) if chunk.written_out else None, None
            if chunk.written_out and header.uncompressed > SMALL_DICTIONARY:
                self._entries(chunk)  # now, since its bytes have just been read
        elif header.kind != PageKind.INDEX:
            self._count(chunk, header)

    def _count(self, chunk: ColumnChunk, header: PageHeader) -> None:
        """Count the values and bytes of a data page to the current batch."""
        size = header.uncompressed
        if header.encoding in INDICES and chunk.dictionary_page is not None:
            most = header.values * chunk.dictionary_page[1].uncompressed
            size = most if most <= SMALL_PAGE else self._written_out(chunk, header, self._entries(chunk))
            if size > chunk.dictionary_held * 1.1 + REPEATED_BYTES:
                raise ValuesRepeated
        chunk.values += header.values
        self._batch_bytes += size
        self._largest = max(self._largest, size)
        if self._batch_bytes - self._largest > self._limit or chunk.values > PAGE_VALUES:
            raise BatchTooLarge

    def _entries(self, chunk: ColumnChunk) -> NDArray[np.int64]:
        """The length of each entry of the chunk's dictionary."""
        if chunk.lengths is None and chunk.dictionary_page is not None:
            place, header = chunk.dictionary_page
            try:
                chunk.lengths = entry_lengths(self._content(chunk, place, header, 0))
            except (struct.error, OSError, ValueError):  # Arrow decides whether the page is damaged
                raise ValuesRepeated from None
        return np.empty(0, np.int64) if chunk.lengths is None else chunk.lengths

    def _written_out(self, chunk: ColumnChunk, header: PageHeader, lengths: NDArray[np.int64]) -> int:
        """Bytes of the page's values. A page that cannot be understood here counts as one that repeats values."""
        details = header.details
        try:
            if header.kind == PageKind.DATA_V2:
                levels = details[5] + details[6]
                indices = self._content(chunk, chunk.next, header, levels, compressed=details.get(7, True))
            else:
                if chunk.levels and (details.get(3), details.get(4)) != (RLE, RLE):
                    raise ValuesRepeated
                page = self._content(chunk, chunk.next, header, 0)
                indices = page[skip_levels(page, levels=chunk.levels) :]
            return written_out(indices, lengths, values=header.values) if indices else 0
        except (struct.error, IndexError, KeyError, OSError, ValueError):
            raise ValuesRepeated from None

    def _content(
        self, chunk: ColumnChunk, place: int, header: PageHeader, skipped: int, *, compressed: bool = True
    ) -> memoryview:
        """The page at `place` behind its header and the `skipped` bytes, decompressed."""
        import pyarrow as pa

        start = place + header.length + skipped
        data = self._within(chunk, start, header.compressed - skipped)
        if header.uncompressed == skipped:
            return memoryview(b"")
        if chunk.codec == "UNCOMPRESSED" or not compressed:
            return data
        codec = pa.Codec(CODECS.get(chunk.codec, chunk.codec.lower()))
        return memoryview(codec.decompress(data, header.uncompressed - skipped))  # in memory that Arrow uses again


def parse_page_header(data: bytes | memoryview) -> PageHeader:
    """Parse the page header at the start of `data`.

    Raises:
        IndexError: the header continues behind the end of `data`.
        PageRefused: the bytes are no page header.
    """
    reader = _CompactReader(data)
    fields = reader.struct(DEEPEST)
    kind, uncompressed, compressed = (fields.get(number) for number in (1, 2, 3))
    if not (isinstance(kind, int) and isinstance(uncompressed, int) and isinstance(compressed, int)):
        raise PageRefused("a page header is damaged")
    content: dict[int, Any] = next((fields[number] for number in (5, 7, 8) if isinstance(fields.get(number), dict)), {})
    encoding = content.get(4 if kind == PageKind.DATA_V2 else 2, 0)
    return PageHeader(
        kind=kind,
        uncompressed=uncompressed,
        compressed=compressed,
        values=content.get(1, 0),
        encoding=encoding,
        length=reader.position,
        details=content,
    )


class _CompactReader:
    """Reads structs of Thrift's compact protocol. Integers and structs are kept, other values are skipped."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self.position = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) & 0x0F:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 0x0F, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # the type holds the boolean
            return kind == 1
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 12 and depth:
            return self.struct(depth - 1)
        if kind in (9, 10) and depth:
            return self._list(depth)
        if kind not in (3, 7, 8):
            raise PageRefused("a page header is damaged")
        return self._skip(self._varint() if kind == 8 else 1 if kind == 3 else 8)

    def _list(self, depth: int) -> None:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        for _ in range(count):
            if head & 0x0F in (1, 2):  # a boolean of a list takes a byte
                self._skip(1)
            else:
                self._value(head & 0x0F, depth - 1)

    def _skip(self, length: int) -> None:
        self.position += length
        if self.position > len(self._data):
            raise IndexError

    def _byte(self) -> int:
        byte = self._data[self.position]
        self.position += 1
        return byte

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise PageRefused("a page header is damaged")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
