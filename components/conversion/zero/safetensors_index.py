"""Index safetensors files: for every tensor, the byte range of the file that holds it.

The format has 8 bytes with the length of the header, then the header as JSON, then the tensors. Tensors are row-major
and without gaps (github.com/huggingface/safetensors, README). This module reads headers alone.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import torch

from components.conversion.zero.byte_sources import TRUNCATED, ByteSource
from components.conversion.zero.torch_zip import StoragePiece
from components.conversion.zero.zero_checkpoint import MasterTensor
from mantis.errors import ConversionError

SUFFIX = ".safetensors"
LENGTH = struct.Struct("<Q")
MAX_HEADER = 100_000_000  # bytes; the limit of the format
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in TYPES.items()}


def read_safetensors(sources: Mapping[str, ByteSource], *, origin: str) -> dict[str, MasterTensor]:
    """Index every tensor of the *.safetensors files among `sources` (name -> source), by tensor name.

    Raises:
        ConversionError: no tensor exists, a file is damaged, or two files hold a tensor of the same name.
    """
    tensors: dict[str, MasterTensor] = {}
    for name, source in sources.items():
        if not name.endswith(SUFFIX):
            continue
        for tensor in _tensors(source):
            if tensor.name in tensors:
                raise ConversionError(f"{origin} holds {tensor.name} twice, once in {name}.", remedy=TRUNCATED)
            tensors[tensor.name] = tensor
    if not tensors:
        raise ConversionError(f"{origin} holds no tensors in safetensors files.", remedy="Name the folder of a model.")
    return tensors


def _tensors(source: ByteSource) -> list[MasterTensor]:
    header, start = _header(source)
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])
            begin, end = entry["data_offsets"]
            tensor = MasterTensor(name=name, shape=shape, dtype=dtype, pieces=())
        except (KeyError, TypeError, ValueError):
            raise _damaged(source, f"the header describes {name} as {entry}") from None
        if begin < 0 or end - begin != tensor.numel * dtype.itemsize or start + end > source.size:
            raise _damaged(source, f"{name} has the range {begin} to {end} in {source.size - start} bytes")
        piece = StoragePiece(source=source, start=start + begin, count=tensor.numel, dtype=dtype)
        found.append(MasterTensor(name=name, shape=shape, dtype=dtype, pieces=(piece,)))
    return found


def _header(source: ByteSource) -> tuple[dict[str, Any], int]:
    """Return the header, and the byte at which the tensors begin."""
    length = LENGTH.unpack(_read(source, 0, LENGTH.size))[0]
    if length > min(MAX_HEADER, source.size - LENGTH.size):
        raise _damaged(source, f"its header would have {length} bytes")
    try:
        header = json.loads(_read(source, LENGTH.size, length))
    except ValueError:
        raise _damaged(source, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(source, "its header is not a table of tensors")
    return header, LENGTH.size + length


def _read(source: ByteSource, start: int, length: int) -> bytes:
    data = bytearray(length)
    source.read_into(start, memoryview(data))
    return bytes(data)


def _damaged(source: ByteSource, why: str) -> ConversionError:
    return ConversionError(f"{source.name} is not a complete safetensors file: {why}.", remedy=TRUNCATED)
