"""Prefetch objects of a store in long ranges.

The pieces of a tensor lie in the files of all ranks, a few hundred kilobytes in each. A request to the store takes
milliseconds. Every file is read from front to back, so the next range is known in advance.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from components.conversion.zero.byte_sources import StoreSource, short
from components.conversion.zero.torch_zip import StoragePiece
from components.conversion.zero.zero_checkpoint import MasterTensor

MEMORY = 96 << 20  # bytes of all windows together
LONGEST = 8 << 20
SHORTEST = 1 << 18
AHEAD = 1  # windows fetched beyond the current one; the previous one is kept too, because threads overtake one another
REQUESTS = 4  # concurrent

Range = tuple[int, int]  # the first byte, and the byte after the last


@contextmanager
def reading_ahead(tensors: Iterable[MasterTensor]) -> Iterator[list[MasterTensor]]:
    """Yield the same tensors, with prefetching in this order. Tensors in local files stay as they are."""
    tensors = list(tensors)
    wanted: dict[int, tuple[StoreSource, list[Range]]] = {}
    for tensor in tensors:
        for piece in tensor.pieces:
            if isinstance(piece.source, StoreSource):
                ranges = wanted.setdefault(id(piece.source), (piece.source, []))[1]
                ranges.append((piece.start, piece.start + piece.count * piece.dtype.itemsize))
    length = min(LONGEST, max(SHORTEST, MEMORY // ((AHEAD + 2) * max(1, len(wanted)))))
    with ThreadPoolExecutor(REQUESTS) as pool:
        windows = {key: _Windows(source, _cut(ranges, length), pool) for key, (source, ranges) in wanted.items()}

        def ahead(piece: StoragePiece) -> StoragePiece:
            return replace(piece, source=windows.get(id(piece.source), piece.source))

        yield [replace(tensor, pieces=tuple(ahead(piece) for piece in tensor.pieces)) for tensor in tensors]


class _Windows:
    """A source that is read range by range, in the order of `ranges`."""

    def __init__(self, source: StoreSource, ranges: list[Range], pool: ThreadPoolExecutor) -> None:
        self.name, self.size = source.name, source.size
        self._source, self._ranges, self._pool = source, ranges, pool
        self._starts = [start for start, _ in ranges]
        self._fetched: dict[int, Future[memoryview]] = {}
        self._lock = threading.Lock()

    def read_into(self, start: int, target: memoryview) -> None:
        done = 0
        while done < len(target):
            index = bisect_right(self._starts, start + done) - 1
            window = self._window(index)
            rest = window[start + done - self._starts[index] :]
            if not rest:
                raise short(self, start + len(target))
            count = min(len(rest), len(target) - done)
            target[done : done + count] = rest[:count]
            done += count

    def _window(self, index: int) -> memoryview:
        with self._lock:
            for old in [held for held in self._fetched if held < index - 1]:
                del self._fetched[old]
            for coming in range(index, min(index + AHEAD + 1, len(self._ranges))):
                if coming not in self._fetched:
                    self._fetched[coming] = self._pool.submit(self._fetch, *self._ranges[coming])
            window = self._fetched[index]
        return window.result()

    def _fetch(self, start: int, end: int) -> memoryview:
        return memoryview(self._source.read(start, end - start))


def _cut(ranges: list[Range], length: int) -> list[Range]:
    """Cut the union of `ranges` into ordered pieces of at most `length` bytes."""
    union: list[list[int]] = []
    for start, end in sorted(ranges):
        if union and start <= union[-1][1]:
            union[-1][1] = max(union[-1][1], end)
        else:
            union.append([start, end])
    return [(at, min(at + length, end)) for start, end in union for at in range(start, end, length)]
