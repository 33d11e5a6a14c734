"""Reshards a checkpoint: loads one of another number of ranks or another ZeRO stage into this engine.

DeepSpeed's universal checkpoints lose frozen parameters. `ds_to_universal` reads only `param_shapes`, which lists
trained parameters. Loading skips `load_module_state_dict`, so frozen parameters keep their initial values (deepspeed
0.19.8, runtime/engine.py `_load_checkpoint`, checkpoint/ds_to_universal.py). It also writes every tensor three more
times. Here every rank maps all shards and copies its part of one parameter at a time.

Layout (deepspeed/utils/zero_to_fp32.py): ZeRO-3 cuts every parameter into equal parts, one per rank, and pads the last
ones. ZeRO-2 concatenates the parameters of an optimizer group and cuts the whole.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import (
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from components.training.checkpointing.deepspeed_files import map_shards
from mantis.errors import IntegrityError

MASTER, MOMENTS = "master", ("exp_avg", "exp_avg_sq")
COUNTS = ("global_steps", "global_samples", "skipped_steps")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One whole trained parameter: fp32 master and AdamW's moments by kind, each flat [numel]."""

    name: str
    values: Mapping[str, Tensor]


class Shards:
    """All files of a checkpoint, mapped into memory.

    Raises:
        IntegrityError: a file holds more than tensors and plain values.
    """

    def __init__(self, folder: Path, *, world_size: int, zero_stage: int) -> None:
        self.stage, self.world_size = zero_stage, world_size
        bf16 = "bf16_" if next(folder.glob("bf16_zero_pp_rank_*"), None) else ""
        optimizers = [f"{bf16}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(world_size)]
        ranks = range(world_size) if zero_stage == 3 else (None,)
        models = ["" if rank is None else f"zero_pp_rank_{rank}_" for rank in ranks]
        self._states = [map_shards(folder / name)["optimizer_state_dict"] for name in optimizers]
        self._models = [map_shards(folder / f"{prefix}mp_rank_00_model_states.pt") for prefix in models]

    @property
    def counts(self) -> dict[str, int]:
        """The engine's own counters."""
        return {name: int(self._models[0][name]) for name in COUNTS}

    @property
    def updates(self) -> float:
        """Number of updates so far, for AdamW's bias correction."""
        return float(next(iter(self._moments(self._states[0]).values()))["step"])

    def trained(self) -> Iterator[Whole]:
        """Every trained parameter, joined from its pieces."""
        shapes: list[Mapping[str, Any]] = self._models[0]["param_shapes"]
        flats = {kind: [self._flats(state, kind) for state in self._states] for kind in (MASTER, *MOMENTS)}
        cut = self._zero3 if self.stage == 3 else self._zero2
        for name, group, offset, numel in _places(shapes, self._lengths(shapes), joined=self.stage == 3):
            yield Whole(name=name, values={kind: cut(ranks, group, offset, numel) for kind, ranks in flats.items()})

    def frozen(self) -> Iterator[tuple[str, Tensor]]:
        """Name and values of every frozen parameter, flat [numel]."""
        for name, shape in (self._models[0].get("frozen_param_shapes") or {}).items():
            parts = [model["frozen_param_fragments"][name].flatten() for model in self._models]
            yield name, torch.cat(parts)[: math.prod(shape)]

    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers by name."""
        module = self._models[0]["module"]
        return {name: module[name] for name in self._models[0]["buffer_names"] if name in module}

    def _lengths(self, shapes: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Elements of each parameter of each group with padding: on one rank for ZeRO-3, over all ranks for ZeRO-2."""
        numels = [[math.prod(shape) for shape in group.values()] for group in shapes]
        if self.stage == 3:
            return [[math.ceil(numel / self.world_size) for numel in group] for group in numels]
        paddings = self._states[0].get("param_alignment_paddings") or [[0] * len(group) for group in numels]
        return [
            [numel + padding for numel, padding in zip(*pair, strict=True)]
            for pair in zip(numels, paddings, strict=True)
        ]

    def _moments(self, state: Mapping[str, Any]) -> dict[int, dict[str, Tensor]]:
        base: dict[str, Any] = state["optimizer_state_dict" if self.stage == 3 else "base_optimizer_state"]
        moments: dict[int, dict[str, Tensor]] = base["state"]
        return moments

    def _flats(self, state: Mapping[str, Any], kind: str) -> list[Tensor]:
        if kind == MASTER:
            flats = state["fp32_flat_groups" if self.stage == 3 else "single_partition_of_fp32_groups"]
        else:
            flats = [moments[kind] for _, moments in sorted(self._moments(state).items())]
        # ZeRO-3 concatenates all groups and cuts them by size: one sequence.
        return [torch.cat(list(flats))] if self.stage == 3 and len(flats) > 1 else list(flats)

    def _zero3(self, ranks: list[list[Tensor]], _: int, offset: int, numel: int) -> Tensor:
        part = math.ceil(numel / self.world_size)
        return torch.cat([flats[0].detach().narrow(0, offset, part) for flats in ranks])[:numel]

    def _zero2(self, ranks: list[list[Tensor]], group: int, offset: int, numel: int) -> Tensor:
        found, begin = [], 0
        for flats in ranks:
            flat = flats[group].detach()
            low, high = max(offset, begin), min(offset + numel, begin + flat.numel())
            if low < high:
                found.append(flat[low - begin : high - begin])
            begin += flat.numel()
        return torch.cat(found)


def load_resharded(engine: Any, shards: Shards, *, rank: int, frozen: bool = True) -> None:
    """Put weights, frozen weights, buffers, moments and counters into the DeepSpeed engine.

    Args:
        engine: an engine of ZeRO-2 or 3 on any number of ranks; every rank calls this function.
        shards: a checkpoint of the same model with the same trained parameters.
        rank: this rank.
        frozen: whether the checkpoint holds frozen parameters; if not, they keep their values.

    Raises:
        IntegrityError: the checkpoint belongs to another model.
    """
    parameters = dict(engine.module.named_parameters())
    _start_moments(engine, shards.updates)
    seen = set()
    for whole in shards.trained():
        _set_trained(_named(parameters, whole.name, whole.values[MASTER]), whole.values, rank)
        seen.add(whole.name)
    for name, value in shards.frozen():
        _copy(_named(parameters, name, value), value, rank)
        seen.add(name)
    missing = sorted(
        name for name, parameter in parameters.items() if name not in seen and (frozen or parameter.requires_grad)
    )
    if missing:
        raise IntegrityError(f"The checkpoint holds no {missing[0]}.", remedy="It belongs to another model.")
    buffers = dict(engine.module.named_buffers())
    for name, value in shards.buffers().items():
        buffers[name].data.copy_(value)
    for name, count in shards.counts.items():
        setattr(engine, name, count)


def _places(
    shapes: Sequence[Mapping[str, Any]], lengths: Sequence[Sequence[int]], *, joined: bool
) -> Iterator[tuple[str, int, int, int]]:
    """(name, group, offset in the group, elements); with `joined`, offsets continue over all groups."""
    offset = 0
    for index, (group, taken) in enumerate(zip(shapes, lengths, strict=True)):
        offset = offset if joined else 0
        for (name, shape), length in zip(group.items(), taken, strict=True):
            yield name, index, offset, math.prod(shape)
            offset += length


def _named(parameters: Mapping[str, nn.Parameter], name: str, value: Tensor) -> Any:
    parameter: Any = parameters.get(name)
    numel = None if parameter is None else getattr(parameter, "ds_numel", parameter.numel())
    if numel != value.numel():
        raise IntegrityError(
            f"The checkpoint's {name} has {value.numel()} elements, the model's {numel or 'none'}.",
            remedy="It belongs to another model.",
        )
    return parameter


def _start_moments(engine: Any, updates: float) -> None:
    """Create AdamW's state as after a first update: ZeRO-2 has none before it, ZeRO-3 counts from one."""
    optimizer = engine.optimizer
    flats = getattr(optimizer, "fp32_partitioned_groups_flat", None) or optimizer.single_partition_of_fp32_groups
    for flat in flats:
        state = optimizer.optimizer.state[flat]
        for kind in MOMENTS:
            state.setdefault(kind, torch.zeros_like(flat))
        step = state.get("step", torch.zeros((), dtype=torch.float32))
        state["step"] = torch.full_like(step, updates)
    if engine.zero_optimization_stage() < 3:
        optimizer._lazy_init_hp_params_optimizer_state()


def _set_trained(parameter: Any, values: Mapping[str, Tensor], rank: int) -> None:
    _copy(parameter, values[MASTER], rank)
    if hasattr(parameter, "ds_tensor"):
        safe_set_local_fp32_param(parameter, _part(parameter, values[MASTER], rank))
        for kind in MOMENTS:
            safe_set_local_optimizer_state(parameter, _part(parameter, values[kind], rank), kind)
        return
    safe_set_full_fp32_param(parameter, values[MASTER])
    for kind in MOMENTS:
        safe_set_full_optimizer_state(parameter, values[kind], kind)


def _copy(parameter: Any, value: Tensor, rank: int) -> None:
    """Copy `value` into the weights of the forward pass: this rank's part under ZeRO-3, else all of it."""
    if hasattr(parameter, "ds_tensor"):
        parameter.ds_tensor.data.copy_(_part(parameter, value, rank))
    else:
        parameter.data.copy_(value.view(parameter.shape))


def _part(parameter: Any, value: Tensor, rank: int) -> Tensor:
    """The elements of `value` that `rank` holds, padded with zeros to the length of a part."""
    length = parameter.ds_tensor.numel()
    own = value[rank * length : (rank + 1) * length]
    return nn.functional.pad(own, (0, length - own.numel()))
