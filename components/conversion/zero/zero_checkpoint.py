"""Index a DeepSpeed ZeRO checkpoint: for every tensor of the model, the pieces of files that hold it.

The layout follows deepspeed/utils/zero_to_fp32.py (0.19.8):

- ZeRO-3 cuts every parameter into equal parts, one for each rank, and pads the last ones.
- ZeRO-1 and ZeRO-2 concatenate the parameters of an optimizer group, and cut the result into one part for each rank.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from components.conversion.zero.byte_sources import ByteSource
from components.conversion.zero.torch_zip import Archive, LazyTensor, Placeholder, StoragePiece
from mantis.errors import ConversionError
from mantis.store.base import concurrently

OPTIMIZER_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
STAGE_NAMES = {"gradients": 2, "weights": 3}  # members of ZeroStageEnum that Python pickled by name
MASTERS = {1: "single_partition_of_fp32_groups", 2: "single_partition_of_fp32_groups", 3: "fp32_flat_groups"}
INCOMPLETE = "Convert another step of the checkpoint: a rank did not save this one, or its copy is incomplete."


class Change(Protocol):
    """A change of a tensor's elements between reading and writing, some rows at a time."""

    def apply(self, rows: torch.Tensor, first: int) -> torch.Tensor:
        """Change `rows` [N, columns], rows `first` to `first + N` of the tensor; the result keeps shape and type."""
        ...


@dataclass(frozen=True, kw_only=True)
class MasterTensor:
    """A complete tensor of the model: its elements in row-major order are the concatenated `pieces`.

    A tensor [rows, columns] with a `change` has the elements that the change makes of the pieces.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[StoragePiece, ...]
    change: Change | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def read_into(self, first: int, count: int, target: memoryview) -> None:
        """Fill `target` with `count` stored elements from element `first` on, before any change."""
        begin, done = 0, 0
        for piece in self.pieces:
            low, high = max(first, begin), min(first + count, begin + piece.count)
            if low < high:
                part = piece.part(low - begin, high - low)
                length = part.count * part.dtype.itemsize
                part.source.read_into(part.start, target[done : done + length])
                done += length
            begin += piece.count

    def read(self, first: int, count: int) -> torch.Tensor:
        """Read `count` stored elements from element `first` on, shape [count], before any change."""
        data = bytearray(count * self.dtype.itemsize)
        self.read_into(first, count, memoryview(data))
        return torch.frombuffer(data, dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The index of a ZeRO checkpoint; `aliases` maps each tied tensor to the name of the tensor that is stored."""

    stage: int
    world_size: int
    step: int
    tensors: dict[str, MasterTensor]
    aliases: dict[str, str]
    trained: frozenset[str]  # names of parameters, frozen ones included; the other tensors are buffers
    frozen: frozenset[str]

    @property
    def parameters(self) -> int:
        """The number of elements of all parameters. Tied ones count once, buffers do not count."""
        return sum(tensor.numel for name, tensor in self.tensors.items() if name in self.trained)


def read_checkpoint(sources: Mapping[str, ByteSource], *, origin: str) -> Checkpoint:
    """Index the checkpoint whose files are `sources` (name -> source), without reading weights.

    Raises:
        ConversionError: a shard is missing, is damaged, belongs to another step, or holds unexpected objects.
    """
    shards = _optimizer_shards(sources, origin)
    states = [_field(shard, shard.value, "optimizer_state_dict") for shard in shards]
    stage = _stage(shards[0], states[0])
    _check_world(shards, states, origin)
    models = [_model_archive(sources, stage, 0, origin)]
    if stage == 3 and _frozen_shapes(models[0]):
        models += concurrently(lambda rank: _model_archive(sources, stage, rank, origin), range(1, len(shards)))
    _check_steps(shards, states, models)
    groups = [
        [shard.locate(flat) for flat in _field(shard, state, MASTERS[stage])]
        for shard, state in zip(shards, states, strict=True)
    ]
    shapes = _field(models[0], models[0].value, "param_shapes")
    found = list(_zero3(shapes, groups, origin) if stage == 3 else _zero2(shapes, groups, states[0], origin))
    found += _frozen(models, stage, origin)
    trained = frozenset(tensor.name for tensor in found)
    tensors = {tensor.name: tensor for tensor in [*found, *_buffers(models[0])]}
    aliases = {alias: name for alias, name in (models[0].value.get("shared_params") or {}).items() if name in tensors}
    return Checkpoint(
        stage=stage,
        world_size=len(shards),
        step=int(_field(models[0], models[0].value, "global_steps")),
        tensors=tensors,
        aliases=aliases,
        trained=trained,
        frozen=frozenset(_frozen_shapes(models[0])),
    )


def _optimizer_shards(sources: Mapping[str, ByteSource], origin: str) -> list[Archive]:
    """Open the optimizer state of every rank, in the order of ranks."""
    by_rank: dict[int, ByteSource] = {}
    for name, source in sources.items():
        match = OPTIMIZER_FILE.fullmatch(name)
        if match and int(match[2]):
            raise ConversionError(
                f"{origin} holds {name}: training used tensor parallelism.", remedy="Train with ZeRO alone."
            )
        if match:
            by_rank[int(match[1])] = source
    if not by_rank:
        raise ConversionError(f"{origin} holds no *_optim_states.pt of a ZeRO optimizer.", remedy=INCOMPLETE)
    missing = sorted(set(range(max(by_rank) + 1)) - set(by_rank))
    if missing:
        raise ConversionError(f"{origin} lacks the optimizer states of rank {missing[0]}.", remedy=INCOMPLETE)
    return concurrently(Archive, [by_rank[rank] for rank in sorted(by_rank)])


def _stage(shard: Archive, state: Mapping[str, Any]) -> int:
    stage = _field(shard, state, "zero_stage")
    number: Any = stage.arguments[0] if isinstance(stage, Placeholder) else stage
    number = STAGE_NAMES.get(number, number)
    if number not in MASTERS:
        raise ConversionError(
            f"{shard.source.name} has ZeRO stage {number!r}, which is not supported.", remedy="Train with stage 2 or 3."
        )
    return int(number)


def _check_world(shards: list[Archive], states: list[Mapping[str, Any]], origin: str) -> None:
    for shard, state in zip(shards, states, strict=True):
        count = _field(shard, state, "partition_count")
        ranks = max(count) if isinstance(count, list) else count
        if ranks != len(shards):
            raise ConversionError(
                f"{origin} holds shards of {len(shards)} ranks, but {shard.source.name} was saved by one of {ranks}.",
                remedy=INCOMPLETE,
            )


def _model_archive(sources: Mapping[str, ByteSource], stage: int, rank: int, origin: str) -> Archive:
    name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
    if name not in sources:
        raise ConversionError(f"{origin} lacks {name}.", remedy=INCOMPLETE)
    return Archive(sources[name])


def _check_steps(shards: list[Archive], states: list[Mapping[str, Any]], models: list[Archive]) -> None:
    """Refuse shards of two steps: the optimizers must have one step count, and so must the engines."""
    counts = {}
    for shard, state in zip(shards, states, strict=True):
        inner = state.get("optimizer_state_dict") or state.get("base_optimizer_state") or {}
        for moments in inner.get("state", {}).values():
            step = moments.get("step")
            counts[shard.source.name] = shard.locate(step).read().item() if isinstance(step, LazyTensor) else step
    engines = {model.source.name: _field(model, model.value, "global_steps") for model in models}
    for found in (counts, engines):
        if len(set(found.values())) > 1:
            (one, first), (other, second) = min(found.items(), key=_second), max(found.items(), key=_second)
            raise ConversionError(f"{one} is of step {first:g}, {other} of step {second:g}.", remedy=INCOMPLETE)


def _second(item: tuple[str, float]) -> float:
    return item[1]


def _zero3(
    shapes: list[Mapping[str, tuple[int, ...]]], groups: list[list[StoragePiece]], origin: str
) -> Iterator[MasterTensor]:
    """Yield the parameters: rank r holds the r-th of equal parts, and the last parts are shorter and padded."""
    offset = 0
    for name, shape in ((name, shape) for group in shapes for name, shape in group.items()):
        part = math.ceil(math.prod(shape) / len(groups))
        pieces = [
            piece
            for rank, flats in enumerate(groups)
            for piece in _cut(flats, offset, _share(math.prod(shape), part, rank), f"{name} in {origin}")
        ]
        offset += part
        yield _tensor(name, shape, pieces, groups[0][0].dtype)
    for flats in groups:
        held = sum(piece.count for piece in flats)
        if held != offset:
            raise ConversionError(
                f"{flats[0].source.name} holds {held} elements, but its share of the parameters is {offset}.",
                remedy=INCOMPLETE,
            )


def _share(total: int, part: int, rank: int) -> int:
    """Return the number of elements in the part of `rank`, without padding."""
    return max(0, min(part, total - rank * part))


def _zero2(
    shapes: list[Mapping[str, tuple[int, ...]]],
    groups: list[list[StoragePiece]],
    state: Mapping[str, Any],
    origin: str,
) -> Iterator[MasterTensor]:
    """Yield the parameters of each optimizer group, which are concatenated and cut into one part for each rank."""
    paddings = state.get("param_alignment_paddings")
    align = 2 * len(groups)  # DeepSpeed rounds a group's length up to a multiple of this
    for index, group in enumerate(shapes):
        flat = [flats[index] for flats in groups]
        offset = 0
        for position, (name, shape) in enumerate(group.items()):
            numel = math.prod(shape)
            yield _tensor(name, shape, _cut(flat, offset, numel, f"{name} in {origin}"), flat[0].dtype)
            offset += numel + (paddings[index][position] if paddings else 0)
        held = sum(piece.count for piece in flat)
        if math.ceil(offset / align) != math.ceil(held / align):
            raise ConversionError(
                f"{origin}: parameter group {index} holds {held} elements, but its shapes add up to {offset}.",
                remedy=INCOMPLETE,
            )


def _frozen(models: list[Archive], stage: int, origin: str) -> Iterator[MasterTensor]:
    for name, shape in _frozen_shapes(models[0]).items():
        fragments = [model.locate(_field(model, model.value, "frozen_param_fragments")[name]) for model in models]
        numel = math.prod(shape)
        part = math.ceil(numel / len(models))
        pieces = [
            piece
            for rank, fragment in enumerate(fragments)
            for piece in _cut([fragment], 0, _share(numel, part, rank), f"{name} in {origin}")
        ]
        yield _tensor(name, shape, pieces, fragments[0].dtype)


def _frozen_shapes(model: Archive) -> Mapping[str, tuple[int, ...]]:
    return model.value.get("frozen_param_shapes") or {}


def _buffers(model: Archive) -> Iterator[MasterTensor]:
    module = _field(model, model.value, "module")
    for name in _field(model, model.value, "buffer_names"):
        if name in module:  # the model's code builds the other buffers again, so they are not saved
            tensor = module[name]
            yield _tensor(name, tensor.shape, [model.locate(tensor)], tensor.dtype)


def _tensor(name: str, shape: tuple[int, ...], pieces: list[StoragePiece], dtype: torch.dtype) -> MasterTensor:
    if any(piece.dtype != dtype for piece in pieces):
        raise ConversionError(f"{name} is stored in several types.", remedy=INCOMPLETE)
    return MasterTensor(name=name, shape=shape, dtype=dtype, pieces=tuple(pieces))


def _cut(pieces: list[StoragePiece], first: int, count: int, what: str) -> list[StoragePiece]:
    """Return elements `first` to `first + count` of consecutive pieces, as at least one piece."""
    found: list[StoragePiece] = []
    begin = 0
    for piece in pieces:
        low, high = max(first, begin), min(first + count, begin + piece.count)
        if low < high:
            found.append(piece.part(low - begin, high - low))
        begin += piece.count
    if sum(piece.count for piece in found) != count:
        raise ConversionError(
            f"{what} needs {count} elements from element {first} on, but only {begin} exist.", remedy=INCOMPLETE
        )
    return found


def _field(archive: Archive, mapping: Any, key: str) -> Any:
    if not isinstance(mapping, Mapping) or key not in mapping:
        raise ConversionError(
            f"{archive.source.name} has no field {key}: it is not a file of a ZeRO checkpoint.", remedy=INCOMPLETE
        )
    return mapping[key]
