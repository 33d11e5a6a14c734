"""Write sharded safetensors at offsets that are computed before any weight is read.

Several threads work block by block: each reads the pieces of a block, casts, hashes and writes them. Memory holds the
blocks in flight alone, whatever the size of the model. The hash (xxh3, 128 bits) detects faults of memory and disk. It
does not detect tampering: the manifest has the SHA-256 of each stored file for that.
"""

import json
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from components.conversion.zero.safetensors_index import TYPES
from components.conversion.zero.zero_checkpoint import MasterTensor
from mantis.errors import ConversionError
from mantis.progress import track

MAX_SHARD_BYTES = 5_000_000_000
BLOCK = 1 << 19  # elements; 2 MiB of fp32 stay in a core's cache between reading, casting and writing
ROWS = 64  # a block of a changed tensor has a multiple of this number of rows
THREADS = min(8, os.cpu_count() or 1)
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """The position of a tensor in its shard: from byte `start` on, stored as `dtype`."""

    tensor: MasterTensor
    dtype: torch.dtype
    start: int

    @property
    def nbytes(self) -> int:
        return self.tensor.numel * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file: its header, and the places of its tensors behind the header; `size` in bytes."""

    name: str
    header: bytes
    places: tuple[Place, ...]
    size: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """`count` elements of a tensor, beginning with element `first`."""

    shard: Shard
    place: Place
    first: int
    count: int

    @property
    def start(self) -> int:
        """The byte of the shard at which the block begins."""
        return self.place.start + self.first * self.place.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.count * self.place.dtype.itemsize


def plan_shards(
    tensors: Iterable[MasterTensor], dtype: torch.dtype, *, max_bytes: int = MAX_SHARD_BYTES
) -> list[Shard]:
    """Distribute tensors over shards of at most `max_bytes`.

    A tensor larger than `max_bytes` gets a shard of its own. Floating-point tensors are cast to `dtype`.

    Raises:
        ConversionError: `tensors` is empty.
    """
    rooms: list[list[tuple[MasterTensor, torch.dtype]]] = []
    left = 0
    for tensor in tensors:
        target = dtype if tensor.dtype.is_floating_point else tensor.dtype
        size = tensor.numel * target.itemsize
        if not rooms or size > left:
            rooms.append([])
            left = max_bytes
        rooms[-1].append((tensor, target))
        left -= size
    if not rooms:
        raise ConversionError("The checkpoint holds no tensors.", remedy="Convert the checkpoint of a model.")
    if len(rooms) == 1:
        return [_shard("model.safetensors", rooms[0])]
    names = [f"model-{number:05d}-of-{len(rooms):05d}.safetensors" for number in range(1, len(rooms) + 1)]
    return [_shard(name, room) for name, room in zip(names, rooms, strict=True)]


def write_shards(shards: list[Shard], folder: Path, *, threads: int = THREADS) -> dict[str, str]:
    """Write every shard, and the index if there are several.

    Returns:
        The digest of each tensor, by its name.

    Raises:
        ConversionError: a source ends too early, or the folder's disk is full.
    """
    try:
        with _opened(shards, folder, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as descriptors:
            for shard in shards:
                os.posix_fallocate(descriptors[shard.name], 0, shard.size)  # fails here if the disk is full
                os.pwrite(descriptors[shard.name], shard.header, 0)

            def move(block: Block, buffers: "Buffers") -> bytes:
                data = buffers.load(block)
                _write_all(descriptors[block.shard.name], data, block.start)
                return xxhash.xxh3_128_digest(data)

            digests = _digests(shards, move, threads, "writing")
        if len(shards) > 1:
            (folder / INDEX).write_text(json.dumps(_index(shards), indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise ConversionError(
            f"{folder} cannot take {sum(shard.size for shard in shards) / 1e9:.2f} GB: {error.strerror}.",
            remedy="Free space, or point TMPDIR to a larger disk.",
        ) from None
    return digests


def hash_written(shards: list[Shard], folder: Path, *, threads: int = THREADS) -> dict[str, str]:
    """Hash each tensor of the written files, comparable with the digests that `write_shards` returned."""
    with _opened(shards, folder, os.O_RDONLY) as descriptors:

        def read(block: Block, buffers: "Buffers") -> bytes:
            data = buffers.target(block)
            count = os.preadv(descriptors[block.shard.name], [data], block.start)
            return xxhash.xxh3_128_digest(data[:count])

        return _digests(shards, read, threads, "checking")


class Buffers:
    """The memory of one thread: a block as it is stored, and as it is written."""

    def __init__(self) -> None:
        self._source = bytearray(BLOCK * 8)  # the widest type has 8 bytes
        self._target = bytearray(BLOCK * 8)

    def target(self, block: Block) -> memoryview:
        """Return memory for the block in the type in which it is written."""
        return memoryview(self._target)[: block.nbytes]

    def load(self, block: Block) -> memoryview:
        """Read the block's elements, apply the tensor's change if it has one, and cast them."""
        tensor, wanted = block.place.tensor, block.place.dtype
        if wanted == tensor.dtype and tensor.change is None:
            target = self.target(block)
            tensor.read_into(block.first, block.count, target)
            return target
        source = memoryview(self._source)[: block.count * tensor.dtype.itemsize]
        tensor.read_into(block.first, block.count, source)
        found = torch.frombuffer(self._source, dtype=tensor.dtype, count=block.count)
        if tensor.change is not None:
            columns = tensor.shape[1]
            found = tensor.change.apply(found.view(-1, columns), block.first // columns).flatten()
        torch.frombuffer(self._target, dtype=wanted, count=block.count).copy_(found)
        return self.target(block)


def _digests(shards: list[Shard], work: Callable[[Block, Buffers], bytes], threads: int, label: str) -> dict[str, str]:
    """Run `work` over every block on `threads` threads.

    The digest of a tensor is the hash of its blocks' digests in order.
    """
    pool: queue.SimpleQueue[Buffers] = queue.SimpleQueue()
    for _ in range(threads):
        pool.put(Buffers())

    def run(block: Block) -> bytes:
        buffers = pool.get()
        try:
            return work(block, buffers)
        finally:
            pool.put(buffers)

    blocks = [block for shard in shards for block in _blocks(shard)]
    digests = {block.place.tensor.name: xxhash.xxh3_128() for block in blocks}
    executor = ThreadPoolExecutor(threads)
    try:
        results = track(executor.map(run, blocks), label=label, total=len(blocks), unit="blocks")
        for block, digest in zip(blocks, results, strict=True):
            digests[block.place.tensor.name].update(digest)
    finally:
        executor.shutdown(cancel_futures=True)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _blocks(shard: Shard) -> Iterator[Block]:
    for place in shard.places:
        step = _step(place.tensor)
        for first in range(0, max(place.tensor.numel, 1), step):
            yield Block(shard=shard, place=place, first=first, count=min(step, place.tensor.numel - first))


def _step(tensor: MasterTensor) -> int:
    """Return the elements per block. A changed tensor has whole rows, in multiples that suit matrix products."""
    if tensor.change is None:
        return BLOCK
    rows = BLOCK // tensor.shape[1]
    return max(1, rows - rows % ROWS if rows > ROWS else rows) * tensor.shape[1]


def _shard(name: str, room: list[tuple[MasterTensor, torch.dtype]]) -> Shard:
    """Put the widest types first, which aligns every tensor to its own width, like the writer of safetensors does."""
    ordered = sorted(room, key=lambda item: -item[1].itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor, dtype in ordered:
        end = offset + tensor.numel * dtype.itemsize
        header[tensor.name] = {"dtype": TYPES[dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    places = []
    for tensor, dtype in ordered:
        places.append(Place(tensor=tensor, dtype=dtype, start=start))
        start += places[-1].nbytes
    return Shard(name=name, header=len(text).to_bytes(8, "little") + text, places=tuple(places), size=start)


def _index(shards: list[Shard]) -> dict[str, object]:
    total = sum(place.nbytes for shard in shards for place in shard.places)
    names = {place.tensor.name: shard.name for shard in shards for place in shard.places}
    return {"metadata": {"total_size": total}, "weight_map": names}


@contextmanager
def _opened(shards: list[Shard], folder: Path, flags: int) -> Iterator[dict[str, int]]:
    with ExitStack() as stack:
        descriptors = {}
        for shard in shards:
            descriptors[shard.name] = os.open(folder / shard.name, flags, 0o644)
            stack.callback(os.close, descriptors[shard.name])
        yield descriptors


def _write_all(descriptor: int, data: memoryview, start: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], start + done)
