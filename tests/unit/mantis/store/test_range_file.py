"""An object as a file: positions, the end, and an object that shrinks under the reader."""

import io

import pytest

from mantis.errors import NotFoundError
from mantis.store.base import StoredObject
from mantis.store.local import LocalStore
from mantis.store.range_file import STREAM_BUFFER, RangeFile, open_range_file, stream

DATA = bytes(range(100))


class Elsewhere:
    """An object that is not a local file; `missing` bytes of it are gone since its size was asked."""

    url = "s3://bucket"

    def __init__(self, *, missing: int = 0) -> None:
        self.asked: list[tuple[int, int]] = []
        self.missing = missing

    def stat(self, key: str) -> StoredObject | None:
        return StoredObject(key=key, size=len(DATA)) if key == "object" else None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        assert key == "object"
        self.asked.append((start, length))
        return DATA[: len(DATA) - self.missing][start : start + length]

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"


def range_file() -> RangeFile:
    def read_into(start: int, target: memoryview) -> None:
        target[:] = DATA[start : start + len(target)]

    return RangeFile(len(DATA), read_into)


def test_a_file_is_read_from_its_position() -> None:
    file = range_file()
    assert (file.readable(), file.seekable(), file.writable(), file.tell()) == (True, True, False, 0)
    assert file.read(3) == DATA[:3]
    assert (file.tell(), file.read(2)) == (3, DATA[3:5])
    assert (file.seek(10), file.read(1)) == (10, DATA[10:11])
    assert (file.seek(-1, io.SEEK_CUR), file.read(2)) == (10, DATA[10:12])
    assert (file.seek(5, io.SEEK_CUR), file.tell()) == (17, 17)
    assert (file.seek(-4, io.SEEK_END), file.read(10)) == (96, DATA[96:])
    assert (file.tell(), file.read(10)) == (100, b"")
    assert (file.seek(7, io.SEEK_END), file.read(1), file.tell()) == (107, b"", 107)
    assert (file.seek(0), file.readall()) == (0, DATA)
    assert file.seek(0) == 0


def test_a_position_before_the_beginning_is_refused() -> None:
    file = range_file()
    file.seek(2)
    for offset, whence in ((-1, io.SEEK_SET), (-3, io.SEEK_CUR), (-101, io.SEEK_END)):
        with pytest.raises(OSError, match="before the beginning"):
            file.seek(offset, whence)
        assert file.tell() == 2
    assert file.seek(-2, io.SEEK_CUR) == file.seek(-100, io.SEEK_END) == 0


def test_a_buffer_of_any_type_is_filled() -> None:
    file, target = range_file(), memoryview(bytearray(8)).cast("I")
    file.seek(97)
    assert file.readinto(target) == 3
    assert bytes(target)[:3] == DATA[97:]
    assert file.readinto(target) == 0


def test_each_read_of_an_object_is_one_request() -> None:
    store = Elsewhere()
    file = open_range_file(store, "object")  # type: ignore[arg-type]
    file.seek(20)
    assert (file.read(5), file.read(500)) == (DATA[20:25], DATA[25:])
    assert store.asked == [(20, 5), (25, 75)]
    assert file.read(1) == b""
    assert len(store.asked) == 2


def test_an_object_that_became_shorter_is_an_error() -> None:
    file = open_range_file(Elsewhere(missing=1), "object")  # type: ignore[arg-type]
    assert file.read(99) == DATA[:99]
    with pytest.raises(OSError, match="s3://bucket/object became shorter"):
        file.read(1)


def test_a_stream_reads_in_large_requests() -> None:
    store = Elsewhere()
    with stream(store, "object") as file:  # type: ignore[arg-type]
        assert [file.read(1) for _ in range(3)] == [DATA[:1], DATA[1:2], DATA[2:3]]
        assert store.asked == [(0, min(STREAM_BUFFER, len(DATA)))]


def test_a_local_object_is_the_file_itself(local_store: LocalStore) -> None:
    local_store.put("object", DATA)
    with open_range_file(local_store, "object") as file:
        assert isinstance(file, io.FileIO)
        assert file.read() == DATA
    for store in (local_store, Elsewhere()):
        with pytest.raises(NotFoundError, match="missing does not exist"):
            open_range_file(store, "missing")  # type: ignore[arg-type]
