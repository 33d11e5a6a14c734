"""Adds up how many bytes the values of a dictionary-encoded Parquet page have once they are written out.

Format: "Plain" and "Run Length Encoding / Bit-Packing Hybrid" of the Parquet specification (apache/parquet-format,
Encodings.md). Only the indices are decoded; the values themselves are never repeated.
"""

import struct

import numpy as np
from numpy.typing import NDArray

LENGTH = struct.Struct("<I")


def entry_lengths(page: bytes | memoryview) -> NDArray[np.int64]:
    """The length in bytes of each entry of a decompressed dictionary page of byte arrays.

    Raises:
        struct.error: an entry is cut off.
    """
    lengths = []
    place = 0
    while place < len(page):
        (length,) = LENGTH.unpack_from(page, place)
        lengths.append(length)
        place += LENGTH.size + length
    return np.array(lengths, np.int64)


def skip_levels(page: bytes | memoryview, *, levels: int) -> int:
    """Return where the values begin in a decompressed data page of version 1, which stores `levels` kinds of levels.

    Raises:
        struct.error: the page is cut off.
    """
    place = 0
    for _ in range(levels):
        place += LENGTH.size + LENGTH.unpack_from(page, place)[0]
    return place


def written_out(indices: bytes | memoryview, lengths: NDArray[np.int64], *, values: int) -> int:
    """Bytes of all values that `indices` name: one byte with the bit width, then the hybrid encoding.

    `values` is the largest possible number of indices.

    Raises:
        IndexError: the indices are cut off, or name an entry that does not exist.
    """
    width, place, total = indices[0], 1, 0
    if not width:
        return values * int(lengths[0]) if len(lengths) else 0
    powers = 1 << np.arange(width, dtype=np.int64)
    while place < len(indices) and values > 0:
        head, place = _varint(indices, place)
        if head & 1:
            size = (head >> 1) * width
            bits = np.unpackbits(np.frombuffer(indices[place : place + size], np.uint8), bitorder="little")
            named = bits[: len(bits) // width * width].reshape(-1, width) @ powers
            total += int(lengths[named[:values]].sum())
            count = (head >> 1) * 8
        else:
            size, count = (width + 7) // 8, head >> 1
            total += min(count, values) * int(lengths[int.from_bytes(indices[place : place + size], "little")])
        place += size
        values -= count
    return total


def _varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
