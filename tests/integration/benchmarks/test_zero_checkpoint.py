"""The benchmark's checkpoints are what DeepSpeed writes, as far as reading one goes."""

from pathlib import Path
from typing import Any

import pytest
from torch import Size

from benchmarks.zero_checkpoint import write_zero3
from components.conversion.zero.byte_sources import FileSource
from components.conversion.zero.torch_zip import Archive, LazyTensor, Placeholder

TAG = "step-00000002"
SAME = ["param_shapes", "dp_world_size", "mp_world_size", "ds_version"]
LEFT_OUT = {"checkpoint_parallel_dimensions", "data_sampler", "global_samples", "random_ltd", "skipped_steps"}


def load(path: Path) -> Any:
    return Archive(FileSource(path)).value


def outline(value: Any) -> Any:
    """`value` without what may differ: which storage of the file a tensor lies in, and the enum of the stage."""
    if isinstance(value, LazyTensor):
        return (value.dtype, value.offset, value.shape)
    if isinstance(value, Placeholder) and value.arguments:
        return value.arguments[0]
    if isinstance(value, dict):
        return {key: outline(item) for key, item in value.items()}
    return [outline(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_format_is_deepspeeds(zero_checkpoints: Path, tmp_path: Path, world: int) -> None:
    theirs = zero_checkpoints / f"zero3-{world}" / TAG
    first = load(theirs / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    groups = [type(group)((name, Size(shape)) for name, shape in group.items()) for group in first["param_shapes"]]
    write_zero3(tmp_path / TAG, groups, world_size=world, seed=0)
    for rank in range(world):
        name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
        model, peer = load(tmp_path / TAG / name), load(theirs / name)
        assert set(model) == set(peer) - LEFT_OUT
        assert {key: model[key] for key in SAME} == {key: peer[key] for key in SAME}
        name = f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        ours, peer = (outline(load(folder / name))["optimizer_state_dict"] for folder in (tmp_path / TAG, theirs))
        for key in ("zero_stage", "partition_count", "fp32_flat_groups"):
            assert ours[key] == peer[key]
        assert ours["optimizer_state_dict"]["state"] == peer["optimizer_state_dict"]["state"]
