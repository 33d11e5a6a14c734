"""The files of all ranks, put together: written here as DeepSpeed lays them out, for stages 2 and 3."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.training.checkpointing.reshard import MASTER, Shards, _named, _part
from mantis.errors import IntegrityError

# Two groups of the optimizer.
GROUPS: list[dict[str, tuple[int, ...]]] = [
    {"a.weight": (3, 5), "a.bias": (3,)},
    {"b.weight": (7,)},
]
FROZEN: dict[str, tuple[int, ...]] = {"tower.weight": (2, 5)}
KINDS = {MASTER: 0.0, "exp_avg": 1000.0, "exp_avg_sq": 2000.0}
COUNTS = {"global_steps": 11, "global_samples": 66, "skipped_steps": 2}


def values(shift: float) -> dict[str, Tensor]:
    """Another number for each element of each parameter."""
    found, begin = {}, 0.0
    for group in GROUPS:
        for name, shape in group.items():
            numel = math.prod(shape)
            found[name] = shift + begin + torch.arange(numel, dtype=torch.float32)
            begin += numel
    return found


def pad(tensor: Tensor, numel: int) -> Tensor:
    return torch.cat([tensor, torch.full((numel - tensor.numel(),), -1.0)])


def model_file(folder: Path, prefix: str, **more: Any) -> None:
    model = {
        "param_shapes": [{name: torch.Size(shape) for name, shape in group.items()} for group in GROUPS],
        "frozen_param_shapes": {name: torch.Size(shape) for name, shape in FROZEN.items()},
        "buffer_names": ["steps", "elsewhere"],
        "module": {"steps": torch.tensor([5.0]), "a.weight": torch.zeros(1)},
        **COUNTS,
        **more,
    }
    torch.save(model, folder / f"{prefix}mp_rank_00_model_states.pt")


def moments(flats: dict[str, list[Tensor]]) -> dict[int, dict[str, Any]]:
    """AdamW's state by group, in another order than the groups have."""
    groups = range(len(flats["exp_avg"]))
    return {
        index: {"step": torch.tensor(9.0), "exp_avg": flats["exp_avg"][index], "exp_avg_sq": flats["exp_avg_sq"][index]}
        for index in reversed(groups)
    }


def stage_3(folder: Path, ranks: int, *, sub_groups: int = 1, bf16: str = "") -> None:
    """Every parameter is cut into equal parts, one per rank, the last ones padded; all groups follow each other."""
    for rank in range(ranks):
        flats: dict[str, list[Tensor]] = {}
        for kind, shift in KINDS.items():
            parts = []
            for tensor in values(shift).values():
                part = math.ceil(tensor.numel() / ranks)
                parts.append(pad(tensor, part * ranks)[rank * part : (rank + 1) * part])
            whole = torch.cat(parts)
            flats[kind] = list(torch.split(whole, math.ceil(whole.numel() / sub_groups)))
        state = {"fp32_flat_groups": flats[MASTER], "optimizer_state_dict": {"state": moments(flats)}}
        torch.save({"optimizer_state_dict": state}, folder / f"{bf16}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        fragments = {}
        for name, shape in FROZEN.items():
            part = math.ceil(math.prod(shape) / ranks)
            tensor = 50 + torch.arange(math.prod(shape), dtype=torch.float32)
            fragments[name] = pad(tensor, part * ranks)[rank * part : (rank + 1) * part]
        model_file(folder, f"zero_pp_rank_{rank}_", frozen_param_fragments=fragments)


def stage_2(folder: Path, ranks: int, *, alignment: list[list[int]] | None = None) -> None:
    """The parameters of a group follow each other, and the whole is cut; `alignment` pads each parameter."""
    paddings = alignment or [[0] * len(group) for group in GROUPS]
    for rank in range(ranks):
        flats: dict[str, list[Tensor]] = {}
        for kind, shift in KINDS.items():
            every = values(shift)
            flats[kind] = []
            for group, padded in zip(GROUPS, paddings, strict=True):
                whole = torch.cat(
                    [pad(every[name], every[name].numel() + more) for name, more in zip(group, padded, strict=True)]
                )
                part = math.ceil(whole.numel() / ranks)
                flats[kind].append(pad(whole, part * ranks)[rank * part : (rank + 1) * part])
        state: dict[str, Any] = {
            "single_partition_of_fp32_groups": flats[MASTER],
            "base_optimizer_state": {"state": moments(flats)},
        }
        if alignment:
            state["param_alignment_paddings"] = alignment
        torch.save({"optimizer_state_dict": state}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    frozen = {name: 50 + torch.arange(math.prod(shape), dtype=torch.float32) for name, shape in FROZEN.items()}
    model_file(folder, "", frozen_param_fragments={name: value.view(2, 5) for name, value in frozen.items()})


def check(shards: Shards) -> None:
    found = {whole.name: whole.values for whole in shards.trained()}
    assert list(found) == ["a.weight", "a.bias", "b.weight"]
    for kind, shift in KINDS.items():
        for name, expected in values(shift).items():
            assert torch.equal(found[name][kind], expected), (kind, name)
    assert [(name, value.tolist()) for name, value in shards.frozen()] == [
        ("tower.weight", [50 + float(at) for at in range(10)])
    ]
    assert {name: value.tolist() for name, value in shards.buffers().items()} == {"steps": [5.0]}
    assert shards.counts == COUNTS
    assert shards.updates == 9.0


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("sub_groups", [1, 3])
def test_stage_3_is_put_together(tmp_path: Path, ranks: int, sub_groups: int) -> None:
    stage_3(tmp_path, ranks, sub_groups=sub_groups)
    check(Shards(tmp_path, world_size=ranks, zero_stage=3))


def test_files_of_bf16_have_another_name(tmp_path: Path) -> None:
    stage_3(tmp_path, 2, bf16="bf16_")
    check(Shards(tmp_path, world_size=2, zero_stage=3))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("alignment", [None, [[1, 2], [3]]])
def test_stage_2_is_put_together(tmp_path: Path, ranks: int, alignment: list[list[int]] | None) -> None:
    stage_2(tmp_path, ranks, alignment=alignment)
    check(Shards(tmp_path, world_size=ranks, zero_stage=2))


def test_a_checkpoint_without_frozen_parameters(tmp_path: Path) -> None:
    stage_2(tmp_path, 2)
    model_file(tmp_path, "", frozen_param_shapes=None)
    assert list(Shards(tmp_path, world_size=2, zero_stage=2).frozen()) == []


def test_a_parameter_of_another_size_is_of_another_model() -> None:
    parameters = {"a": nn.Parameter(torch.zeros(2, 3))}
    assert _named(parameters, "a", torch.zeros(6)) is parameters["a"]
    with pytest.raises(IntegrityError, match="The checkpoint's a has 5 elements, the model's 6"):
        _named(parameters, "a", torch.zeros(5))
    with pytest.raises(IntegrityError, match="The checkpoint's b has 5 elements, the model's none"):
        _named(parameters, "b", torch.zeros(5))
    parameters["a"].ds_numel = 8
    assert _named(parameters, "a", torch.zeros(8)) is parameters["a"]


def test_a_part_is_padded_to_its_length() -> None:
    parameter: Any = nn.Parameter(torch.zeros(0))
    parameter.ds_tensor = torch.zeros(4)
    value = torch.arange(1.0, 7.0)
    assert _part(parameter, value, 0).tolist() == [1, 2, 3, 4]
    assert _part(parameter, value, 1).tolist() == [5, 6, 0, 0]
    assert _part(parameter, value, 2).tolist() == [0, 0, 0, 0]
