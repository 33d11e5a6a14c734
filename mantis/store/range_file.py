"""An object of a store, or any bytes that can be read by position, as a file that can be read and sought."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from mantis.errors import NotFoundError
from mantis.store.base import ObjectStore
from mantis.store.local import LocalStore

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STREAM_BUFFER = 1 << 23  # bytes of one request when an object is read from end to end
ReadInto = Callable[[int, memoryview], None]


class RangeFile(io.RawIOBase):
    """Read-only file of `size` bytes; `read_into(start, target)` fills `target` with the bytes from `start` on."""

    def __init__(self, size: int, read_into: ReadInto) -> None:
        super().__init__()
        self._size, self._read_into, self._position = size, read_into, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which may lie behind the end.

        Raises:
            OSError: the position is negative.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        target = memoryview(buffer).cast("B")
        target = target[: max(0, min(len(target), self._size - self._position))]
        if target:
            self._read_into(self._position, target)
        self._position += len(target)
        return len(target)


def open_range_file(store: ObjectStore, key: str) -> io.RawIOBase:
    """The object as a file; each read is one range request. A local file is opened itself, which saves two copies.

    Raises:
        NotFoundError: no such object.
    """
    found = store.stat(key)
    if found is None:
        raise NotFoundError(f"{store.uri(key)} does not exist.", remedy="Check the address.")
    if isinstance(store, LocalStore):
        return io.FileIO(store.lance_uri(key))

    def read_into(start: int, target: memoryview) -> None:
        data = store.get_range(key, start, len(target))
        if len(data) != len(target):
            raise OSError(f"{store.uri(key)} became shorter while it was read")
        target[:] = data

    return RangeFile(found.size, read_into)


def stream(store: ObjectStore, key: str) -> io.BufferedReader:
    """The object's bytes from its beginning, read in large requests."""
    return io.BufferedReader(open_range_file(store, key), STREAM_BUFFER)
