"""Reads the central directory of a zip by two range requests, and keeps it as arrays.

Format: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.12 (central directory) and 4.3.14 to 4.3.16 (its end, with zip64).
Python's zipfile makes an object of about 600 bytes per member, too much for a source of millions of images.
"""

import hashlib
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.data.sources.images.image_names import plain_member
from mantis.errors import InputError
from mantis.store.base import ObjectStore, StoredObject

END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")
CENTRAL = struct.Struct("<4s6H3I5H2I")
LONGEST_COMMENT = 0xFFFF
NARROW, WIDE = 0xFFFFFFFF, 0xFFFF  # the value of a field that is too small: the zip64 record holds the true value
ZIP64_EXTRA = 1
UNIX = 3
ENCRYPTED = 1

MEMBER = np.dtype(
    [
        ("name", "<u8"),  # member_key of the name
        ("offset", "<u8"),  # of the local header
        ("compressed", "<u8"),
        ("size", "<u8"),
        ("crc", "<u4"),
        ("method", "<u2"),
        ("name_length", "<u2"),
        ("link", "?"),
        ("encrypted", "?"),
    ]
)


def member_key(name: bytes) -> int:
    """Hash a name to 64 bits. The name itself is compared when the member is read."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The files of one zip, in the directory's order (dtype MEMBER), and the hash of the directory.

    `others` holds the members again whose names are not in plain form (image_names.py), under their plain names.

    `content` hashes names, CRC-32, sizes and kinds of all members, instead of their bytes. The CRC-32 is checked when a
    member is read, so a changed image is rejected.
    """

    members: NDArray[np.void]
    others: NDArray[np.void]
    content: str


def read_directory(store: ObjectStore, file: StoredObject) -> Directory:
    """Read the directory of the zip at `file`.

    Raises:
        InputError: the file is no zip, is cut off, or is one part of several disks.
    """
    origin = store.uri(file.key)
    try:
        start, size, count, shift = _find(store, file)
        data = store.get_range(file.key, start, size)
        members = np.empty(count, MEMBER)
        lines = hashlib.sha256()
        others = []
        used = 0
        for member, line in _members(data, shift):
            if not line.endswith(b"/"):
                members[used] = member
                used += 1
                plain = plain_member(line)
                if plain != line:
                    others.append((member_key(plain), *member[1:]))
            lines.update(line + b"\0" + struct.pack("<3Q?", member[4], member[2], member[3], member[7]))
    except (struct.error, IndexError) as error:
        raise _broken(origin, str(error)) from None
    return Directory(members=members[:used].copy(), others=np.array(others, MEMBER), content=lines.hexdigest())


def _find(store: ObjectStore, file: StoredObject) -> tuple[int, int, int, int]:
    """Find the directory: its start and size in the file, its number of members, and the correction of offsets."""
    origin = store.uri(file.key)
    tail_start = max(0, file.size - END.size - LONGEST_COMMENT - LOCATOR64.size)
    tail = store.get_range(file.key, tail_start, file.size - tail_start)
    at = _end_record(tail)
    if at < 0:
        raise _broken(origin, "it has no central directory")
    _, disk, first_disk, _, count, size, offset, _ = END.unpack_from(tail, at)
    end = tail_start + at
    if at >= LOCATOR64.size and tail[at - LOCATOR64.size :].startswith(b"PK\6\7"):
        _, _, place, _ = LOCATOR64.unpack_from(tail, at - LOCATOR64.size)
        record = store.get_range(file.key, place, END64.size)
        signature, _, _, _, disk, first_disk, _, count, size, offset = END64.unpack(record)
        if signature != b"PK\6\6":
            raise _broken(origin, "its zip64 record is not where it should be")
        end = place
    if disk or first_disk:
        raise _broken(origin, "it is one part of a zip of several disks")
    start = end - size  # if other bytes precede the zip, all of its offsets are too small by their number
    if start < offset or count * CENTRAL.size > size:
        raise _broken(origin, "its central directory is cut off")
    return start, size, count, start - offset


def _end_record(tail: bytes) -> int:
    """Position of the end record in the file's last bytes; -1 if it is missing.

    A comment may hold the record's signature. So the record whose comment ends with the file wins, else the last one.
    """
    at = tail.rfind(b"PK\5\6", 0, len(tail) - END.size + 4)
    while at >= 0:
        if at + END.size + END.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(b"PK\5\6", 0, at + 3)
    return tail.rfind(b"PK\5\6")


def _members(data: bytes, shift: int) -> Iterator[tuple[tuple[int | bool, ...], bytes]]:
    """Yield each member as a value of MEMBER, with its name."""
    at = 0
    while at < len(data):
        fields = CENTRAL.unpack_from(data, at)
        signature, made_by, _, flags, method, _, _, crc, compressed, size = fields[:10]
        name_length, extra_length, comment_length, _, _, attributes, offset = fields[10:]
        if signature != b"PK\1\2":
            raise struct.error("its central directory is damaged")
        at += CENTRAL.size
        name = data[at : at + name_length]
        extra = data[at + name_length : at + name_length + extra_length]
        if NARROW in (size, compressed, offset):
            size, compressed, offset = _widen(extra, size, compressed, offset)
        link = made_by >> 8 == UNIX and stat.S_ISLNK(attributes >> 16)
        encrypted = bool(flags & ENCRYPTED)
        key = member_key(name)
        yield (key, offset + shift, compressed, size, crc, method, name_length, link, encrypted), name
        at += name_length + extra_length + comment_length


def _widen(extra: bytes, *values: int) -> tuple[int, ...]:
    """Replace the values that do not fit into 32 bits by those of the zip64 field, which keeps the same order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64_EXTRA:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            try:
                return tuple(next(wide) if value == NARROW else value for value in values)
            except RuntimeError:
                raise struct.error("a zip64 field is cut off") from None
        at += 4 + length
    return values  # exactly 4 GiB - 1, without a zip64 field


def _broken(origin: str, what: str) -> InputError:
    return InputError(f"{origin} cannot be read as a zip: {what}.", remedy="Fetch the file again.")
