"""An object of a store as a file that can be read and sought."""

import io
from typing import TYPE_CHECKING

from mantis.errors import NotFoundError
from mantis.store.base import ObjectStore

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STREAM_BUFFER = 1 << 23  # bytes of one request when an object is read from end to end


class RangeFile(io.RawIOBase):
    """Read-only; each `readinto` is one range request.

    Raises:
        NotFoundError: no such object.
    """

    def __init__(self, store: ObjectStore, key: str) -> None:
        super().__init__()
        found = store.stat(key)
        if found is None:
            raise NotFoundError(f"{store.uri(key)} does not exist.", remedy="Check the address.")
        self._store, self._key, self._size, self._at = store, key, found.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self._store.get_range(self._key, self._at, min(len(view), max(0, self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def stream(store: ObjectStore, key: str) -> io.BufferedReader:
    """The object's bytes from its beginning, read in large requests."""
    return io.BufferedReader(RangeFile(store, key), STREAM_BUFFER)
