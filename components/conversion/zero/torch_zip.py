"""Index a file that torch.save wrote: its structure in full, its tensors as positions in the file.

Nothing of a checkpoint is executed. The unpickler knows tensors, plain containers, and DeepSpeed's own classes as inert
placeholders. Any other global is an error that names it.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from components.conversion.zero.byte_sources import TRUNCATED, ByteSource
from mantis.errors import ConversionError
from mantis.store.range_file import RangeFile

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of the name, length of the extra field
INDEX_BLOCK = 1 << 16
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, kw_only=True)
class StoragePiece:
    """`count` consecutive elements of `dtype` in `source`, from byte `start` on."""

    source: ByteSource
    start: int
    count: int
    dtype: torch.dtype

    def part(self, first: int, count: int) -> "StoragePiece":
        """Return `count` elements of this piece, from element `first` on."""
        return StoragePiece(
            source=self.source, start=self.start + first * self.dtype.itemsize, count=count, dtype=self.dtype
        )

    def read(self) -> torch.Tensor:
        """Read the elements into memory, shape [count]; meant for small pieces."""
        data = bytearray(self.count * self.dtype.itemsize)
        self.source.read_into(self.start, memoryview(data))
        return torch.frombuffer(data, dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class LazyTensor:
    """A contiguous tensor that is not read yet: element `offset` of the file's storage `storage`, and its shape."""

    storage: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class Archive:
    """A torch.save file; `value` is the saved object, with a LazyTensor in place of every tensor."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        try:
            with zipfile.ZipFile(io.BufferedReader(RangeFile(source.size, source.read_into), INDEX_BLOCK)) as archive:
                self._members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
                structure = archive.read(self._member("data.pkl"))
                order = archive.read(self._member("byteorder")) if "byteorder" in self._members else b"little"
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
            raise self._damaged(f"it is not a complete torch.save file ({error})") from None
        if order != b"little":
            raise ConversionError(
                f"{source.name} was written big-endian.", remedy="Convert it on the machine that wrote it."
            )
        self.value = self._unpickle(structure)

    def locate(self, tensor: LazyTensor) -> StoragePiece:
        """Find the bytes of a tensor of this archive.

        Raises:
            ConversionError: its storage is missing, compressed, or shorter than the tensor.
        """
        info = self._member(f"data/{tensor.storage}")
        width = tensor.dtype.itemsize
        begin, length = tensor.offset * width, tensor.numel * width
        if info.compress_type != zipfile.ZIP_STORED or begin < 0 or begin + length > info.file_size:
            raise self._damaged(
                f"storage {tensor.storage} holds {info.file_size} bytes, but {begin + length} are needed"
            )
        header = bytearray(LOCAL_HEADER.size)
        self.source.read_into(info.header_offset, memoryview(header))
        signature, name, extra = LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise self._damaged(f"storage {tensor.storage} is not at the position in the file's index")
        start = info.header_offset + LOCAL_HEADER.size + name + extra + begin
        return StoragePiece(source=self.source, start=start, count=tensor.numel, dtype=tensor.dtype)

    def _member(self, name: str) -> zipfile.ZipInfo:
        info = self._members.get(name)
        if info is None:
            raise self._damaged(f"it has no member {name}")
        return info

    def _unpickle(self, structure: bytes) -> Any:
        try:
            return _Unpickler(io.BytesIO(structure), self.source.name).load()
        except ConversionError:
            raise
        except Exception as error:  # a damaged pickle can fail in any way, and no traceback helps
            raise self._damaged(f"its structure cannot be read ({type(error).__name__}: {error})") from None

    def _damaged(self, why: str) -> ConversionError:
        return ConversionError(f"{self.source.name}: {why}.", remedy=TRUNCATED)


class Placeholder:
    """An object of one of DeepSpeed's classes: it keeps arguments and state, and runs none of the class's code."""

    arguments: tuple[object, ...]
    state: object

    def __new__(cls, *arguments: object) -> "Placeholder":
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, name: str) -> None:
        super().__init__(file)
        self._name = name
        self._known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "Size"): tuple,
            ("torch", "Tensor"): Placeholder,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._first,
            ("torch._tensor", "_rebuild_from_type_v2"): self._typed,
            # Python 3.11.0 to 3.11.3 write a member of an enumeration as `getattr(class, name)`.
            ("__builtin__", "getattr"): self._enumerated,
            ("builtins", "getattr"): self._enumerated,
        }

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in self._known:
            return self._known[module, name]
        if module.partition(".")[0] == "deepspeed":
            return type(name, (Placeholder,), {})
        raise self._unwanted(module, name)

    def _unwanted(self, module: str, name: str) -> ConversionError:
        return ConversionError(
            f"{self._name} wants {module}.{name}, which no checkpoint of tensors needs. None of its code was run.",
            remedy="Do not load this file. A checkpoint may hold tensors, numbers, texts, lists and dicts alone.",
        )

    def persistent_load(self, pid: Any, /) -> tuple[str, torch.dtype]:
        _, dtype, key, _, _ = pid
        return str(key), dtype

    def _tensor(
        self, storage: tuple[str, torch.dtype], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> LazyTensor:
        key, dtype = storage
        if not _is_contiguous(shape, stride):
            raise ConversionError(
                f"{self._name} holds a tensor of shape {shape} and stride {stride}, which is not contiguous.",
                remedy="Convert only files that DeepSpeed wrote.",
            )
        return LazyTensor(storage=key, dtype=dtype, offset=offset, shape=tuple(shape))

    def _enumerated(self, of: object, name: str) -> Placeholder:
        if not (isinstance(of, type) and issubclass(of, Placeholder)):
            raise self._unwanted("__builtin__", "getattr")
        return of(name)

    def _first(self, value: object, *_: object) -> object:
        return value

    def _typed(self, rebuild: Callable[..., object], _type: object, arguments: tuple[object, ...], _: object) -> object:
        return rebuild(*arguments)


def _is_contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True
