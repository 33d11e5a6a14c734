"""Reads images from zips in place: one range request per image, and nothing is unpacked to disk."""

import posixpath
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.sources.images.image_names import clean, plain_member
from components.data.sources.images.zip_directory import member_key, read_directory
from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory, NamedPaths
from mantis.hashing import fingerprint
from mantis.store.base import ObjectStore, StoredObject, concurrently

LOCAL = struct.Struct("<4s5H3I2H")
STORED, DEFLATED = 0, 8
SLACK = 256  # bytes for a local header's extra field; a longer one needs a second request
DEFLATE_OVERHEAD = 1024  # bytes by which deflate may enlarge an image; zlib's bound is far lower


@dataclass(frozen=True, kw_only=True)
class ZipImages:
    """The members of `files`. Of two members with the same name the later one wins, as when all are unpacked."""

    store: ObjectStore
    files: tuple[StoredObject, ...]
    _loaded: list[tuple["_Table", "_Table"]] = field(default_factory=list, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        found = self._find(path)
        if found is None:
            raise RowRejected("image-missing", value=path)
        return self._read(path, *found, max_bytes)

    @property
    def names(self) -> list[str]:
        """The file names of the zips, which decide what a path in the rows may leave out."""
        return [posixpath.basename(file.key) for file in self.files]

    def holds(self, path: str) -> bool:
        """Whether a member has this name."""
        try:
            return self._find(path) is not None
        except RowRejected:
            return False

    def fingerprint(self, memory: Memory, named: NamedPaths) -> str:
        """Hash of the zips' central directories.

        It is cheap for any size. It is safe, since `read` checks each member against its CRC-32 in the directory.
        """

        def content(file: StoredObject) -> str:
            return memory.recall("directory", self.store, [file], lambda: read_directory(self.store, file).content)

        return fingerprint(concurrently(content, self.files))

    def _find(self, path: str) -> tuple[bytes, "_Table", int] | None:
        """The member's name, its table and its place there. A name of equal form counts if no member has the name."""
        exact, others = self._tables()
        name = clean(path)
        for wanted, tables in ((self._names(name), (exact,)), (self._plain_names(name), (others, exact))):
            for member in wanted:
                for table in tables:
                    position = table.find(member)
                    if position is not None:
                        return member, table, position
        return None

    def _tables(self) -> tuple["_Table", "_Table"]:
        with self._lock:
            if not self._loaded:
                directories = concurrently(lambda file: read_directory(self.store, file), self.files)
                exact = _Table([directory.members for directory in directories])
                self._loaded.append((exact, _Table([directory.others for directory in directories])))
            return self._loaded[0]

    def _names(self, path: str) -> Iterator[bytes]:
        """Names that the member may have. A zip holds either a folder's content or the folder itself."""
        for name in [path, *(path.removeprefix(top) if path.startswith(top) else top + path for top in self._tops)]:
            yield name.encode()
            if not name.isascii():  # a zip without the UTF-8 flag (APPNOTE, appendix D)
                yield name.encode("cp437", errors="replace")

    def _plain_names(self, path: str) -> Iterator[bytes]:
        return (plain_member(name) for name in self._names(path))

    @cached_property
    def _tops(self) -> tuple[str, ...]:
        """The folder that each zip may hold, by the name of the zip without its number."""
        folders = {re.sub(r"_part\d+$", "", posixpath.basename(file.key).removesuffix(".zip")) for file in self.files}
        return tuple(f"{folder}/" for folder in sorted(folders))

    def _read(self, path: str, name: bytes, table: "_Table", position: int, max_bytes: int) -> bytes:
        member = table.members[position]
        size, compressed = int(member["size"]), int(member["compressed"])
        if member["link"]:
            raise RowRejected("image-link", value=path)
        if size > max_bytes:
            raise RowRejected("image-bytes", value=f"{path}: {size}", threshold=str(max_bytes))
        if member["encrypted"] or member["method"] not in (STORED, DEFLATED):
            raise _broken(path, "encrypted" if member["encrypted"] else f"compressed by method {member['method']}")
        if compressed > size + DEFLATE_OVERHEAD or (member["method"] == STORED and compressed != size):
            raise _broken(path, f"{compressed} compressed bytes for {size}")
        data = self._fetch(path, name, self.files[int(table.file[position])], member)
        if member["method"] == DEFLATED:
            data = _inflate(path, data, size)
        if zlib.crc32(data) != member["crc"]:
            raise _broken(path, "its CRC-32 is not the one in the zip's directory")
        return data

    def _fetch(self, path: str, name: bytes, file: StoredObject, member: Any) -> bytes:
        """Read the member's bytes as stored, still compressed."""
        start, compressed = int(member["offset"]), int(member["compressed"])
        data = self.store.get_range(file.key, start, LOCAL.size + int(member["name_length"]) + SLACK + compressed)
        if not data.startswith(b"PK\3\4") or len(data) < LOCAL.size:
            raise _broken(path, "no member where the zip's directory says")
        name_length, extra_length = LOCAL.unpack_from(data)[-2:]
        found = data[LOCAL.size : LOCAL.size + name_length]
        if found != name and plain_member(found) != plain_member(name):
            raise _broken(path, "another member where the zip's directory says")
        skipped = LOCAL.size + name_length + extra_length
        if len(data) < skipped + compressed:
            data, skipped = self.store.get_range(file.key, start + skipped, compressed), 0
        if len(data) < skipped + compressed:
            raise _broken(path, "the zip ends within it")
        return data[skipped : skipped + compressed]


class _Table:
    """The members of all zips, sorted by the hash of their names."""

    def __init__(self, directories: list[NDArray[np.void]]) -> None:
        members = np.concatenate(directories)
        file = np.repeat(np.arange(len(directories), dtype=np.int32), [len(found) for found in directories])
        order = np.argsort(members["name"], kind="stable")
        self.members, self.file = members[order], file[order]
        self._keys = np.ascontiguousarray(self.members["name"])

    def find(self, name: bytes) -> int | None:
        """Position of the last member with this name; None if there is none."""
        key = np.uint64(member_key(name))
        position = int(np.searchsorted(self._keys, key, side="right")) - 1
        return position if position >= 0 and self._keys[position] == key else None


def _inflate(path: str, data: bytes, size: int) -> bytes:
    """Inflate `data` to `size` bytes. At most one more byte is ever inflated, so a zip bomb needs no memory."""
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise _broken(path, str(error)) from None
    if len(inflated) > size:
        raise RowRejected("image-bomb", value=path, threshold=f"the {size} bytes that its zip declares")
    if len(inflated) < size:
        raise _broken(path, f"{len(inflated)} bytes, not the {size} that its zip declares")
    return inflated


def _broken(path: str, what: str) -> RowRejected:
    return RowRejected("image-broken", value=f"{path}: {what}")
