import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum
from safetensors.torch import load_file

from components.conversion import shard_writer
from components.conversion.zero.byte_sources import ByteSource, FileSource, folder_sources, store_sources
from components.conversion.zero.torch_zip import Archive
from components.conversion.zero.zero_checkpoint import Checkpoint, read_checkpoint
from components.training.checkpointing.reshard import MOMENTS, Shards
from mantis.errors import ConversionError
from mantis.store.local import LocalStore
from tests.helpers.planted_code import Planted

TAG = "step-00000002"
LAYOUTS = [f"zero{stage}-{world}" for stage in (2, 3) for world in (1, 2, 3, 7)]


def read(folder: Path) -> Checkpoint:
    return read_checkpoint(folder_sources(folder / TAG), origin=str(folder))


def convert(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype, max_bytes: int) -> dict[str, torch.Tensor]:
    folder.mkdir()
    shards = shard_writer.plan_shards(checkpoint.tensors.values(), dtype, max_bytes=max_bytes)
    shard_writer.write_shards(shards, folder)
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors | {alias: tensors[name] for alias, name in checkpoint.aliases.items()}


@pytest.mark.parametrize("block", [1 << 21, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_bits_are_those_of_deepspeeds_own_conversion(
    zero_checkpoints: Path, tmp_path: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "BLOCK", block)  # 3 elements: blocks that cross the ranks' boundaries
    checkpoint = read(zero_checkpoints / name)
    assert (checkpoint.stage, checkpoint.world_size, checkpoint.step) == (int(name[4]), int(name[6]), 2)
    assert checkpoint.aliases == {"head.weight": "embed.weight"}
    assert checkpoint.parameters == 7 * 5 + 2 * (5 * 5 + 5) + 2 * 5 + 1
    expected = load_file(zero_checkpoints / name / "expected.safetensors")
    for dtype, max_bytes in ((torch.float32, 10**9), (torch.float32, 120), (torch.bfloat16, 10**9)):
        found = convert(checkpoint, tmp_path / f"{dtype}-{max_bytes}", dtype, max_bytes)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            cast = tensor.to(dtype) if tensor.is_floating_point() else tensor
            assert found[key].dtype == cast.dtype
            assert torch.equal(found[key], cast), key


def test_paddings_between_parameters_are_left_out(
    checkpoint_copy: Callable[[str], Path], zero_checkpoints: Path, tmp_path: Path
) -> None:
    """DeepSpeed's `parameter_alignment` puts them behind each parameter, and names their lengths."""
    folder = checkpoint_copy("zero2-2")
    put_paddings(folder / TAG, ranks=2)
    expected = load_file(zero_checkpoints / "zero2-2" / "expected.safetensors")
    found = convert(read(folder), tmp_path / "out", torch.float32, 10**9)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    resumed = {whole.name: whole.values for whole in Shards(folder / TAG, world_size=2, zero_stage=2).trained()}
    plain = {
        whole.name: whole.values
        for whole in Shards(zero_checkpoints / "zero2-2" / TAG, world_size=2, zero_stage=2).trained()
    }
    assert resumed.keys() == plain.keys()
    for name, values in plain.items():
        assert all(torch.equal(resumed[name][kind], values[kind]) for kind in values), name


def put_paddings(folder: Path, *, ranks: int) -> None:
    """Put 1, 2, 3, ... elements of 99 behind the parameters of each group, and share the longer groups out."""
    shapes = torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)["param_shapes"]
    numels = [[math.prod(shape) for shape in group.values()] for group in shapes]
    paddings = [list(range(1, len(group) + 1)) for group in numels]
    files = [folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(ranks)]
    saved = [torch.load(file, weights_only=False) for file in files]
    states = [each["optimizer_state_dict"] for each in saved]
    for state in states:
        state["param_alignment_paddings"] = paddings

    def padded(parts: list[torch.Tensor], group: int) -> list[torch.Tensor]:
        pieces = torch.cat(parts)[: sum(numels[group])].detach().split(numels[group])
        longer = torch.cat(
            [torch.cat([piece, torch.full((more,), 99.0)]) for piece, more in zip(pieces, paddings[group], strict=True)]
        )
        longer = torch.nn.functional.pad(longer, (0, -len(longer) % (2 * ranks)))
        return [part.clone() for part in longer.chunk(ranks)]

    for group in range(len(numels)):
        places = [state["single_partition_of_fp32_groups"] for state in states]
        for place, part in zip(places, padded([place[group] for place in places], group), strict=True):
            place[group] = part
        moments = [state["base_optimizer_state"]["state"][group] for state in states]
        for kind in MOMENTS:
            for own, part in zip(moments, padded([own[kind] for own in moments], group), strict=True):
                own[kind] = part
    for file, state in zip(files, saved, strict=True):
        torch.save(state, file)


def test_an_object_store_is_read_by_range(zero_checkpoints: Path, tmp_path: Path) -> None:
    folder = zero_checkpoints / "zero3-3"
    remote = Ranges(LocalStore(folder))
    checkpoint = read_checkpoint(store_sources(remote, TAG), origin="remote")  # type: ignore[arg-type]
    found = convert(checkpoint, tmp_path / "out", torch.float32, 10**9)
    expected = load_file(folder / "expected.safetensors")
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


class Ranges:
    """A store that answers only what reading a checkpoint may ask of it."""

    def __init__(self, store: LocalStore) -> None:
        self.list, self.uri, self.get_range = store.list, store.uri, store.get_range


def test_only_the_masters_are_read(tmp_path: Path) -> None:
    from benchmarks.zero_checkpoint import llama_shapes, write_zero3

    shapes = llama_shapes(width=64, layers=1, mlp=128)
    masters = write_zero3(tmp_path / TAG, [shapes], world_size=2, seed=0)
    read_bytes = 0

    class Counted:
        def __init__(self, source: ByteSource) -> None:
            self.name, self.size, self._source = source.name, source.size, source

        def read_into(self, start: int, target: memoryview) -> None:
            nonlocal read_bytes
            read_bytes += len(target)
            self._source.read_into(start, target)

    sources = {name: Counted(source) for name, source in folder_sources(tmp_path / TAG).items()}
    convert(read_checkpoint(sources, origin="here"), tmp_path / "out", torch.bfloat16, 10**9)
    assert masters <= read_bytes <= 1.05 * masters


@pytest.mark.parametrize(
    ("name", "file", "says"),
    [
        ("zero3-3", "zero_pp_rank_1_mp_rank_00_optim_states.pt", "lacks the optimizer states of rank 1"),
        ("zero3-3", "zero_pp_rank_2_mp_rank_00_optim_states.pt", "holds shards of 2 ranks"),
        ("zero3-3", "zero_pp_rank_2_mp_rank_00_model_states.pt", "lacks zero_pp_rank_2_mp_rank_00_model_states.pt"),
        ("zero2-2", "mp_rank_00_model_states.pt", "lacks mp_rank_00_model_states.pt"),
    ],
)
def test_a_missing_shard_is_named(checkpoint_copy: Callable[[str], Path], name: str, file: str, says: str) -> None:
    folder = checkpoint_copy(name)
    (folder / TAG / file).unlink()
    with pytest.raises(ConversionError, match=says):
        read(folder)


@pytest.mark.parametrize("keep", [0, 100, 3000, -1])
def test_a_truncated_shard_is_named(checkpoint_copy: Callable[[str], Path], keep: int) -> None:
    folder = checkpoint_copy("zero3-2")
    path = folder / TAG / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConversionError, match=r"rank_1_mp_rank_00_optim_states\.pt"):
        read(folder)


def test_shards_of_two_steps_are_refused(checkpoint_copy: Callable[[str], Path]) -> None:
    folder = checkpoint_copy("zero3-2")
    path = folder / TAG / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    saved = torch.load(path, weights_only=False)
    for moments in saved["optimizer_state_dict"]["optimizer_state_dict"]["state"].values():
        moments["step"] += 1
    torch.save(saved, path)
    with pytest.raises(ConversionError, match=r"rank_0\S+ is of step 2, \S+rank_1\S+ of step 3"):
        read(folder)


def test_a_shard_of_another_world_size_is_refused(
    checkpoint_copy: Callable[[str], Path], zero_checkpoints: Path
) -> None:
    folder = checkpoint_copy("zero3-2")
    name = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    shutil.copy(zero_checkpoints / "zero3-3" / TAG / name, folder / TAG / name)
    with pytest.raises(ConversionError, match="saved by one of 3"):
        read(folder)


def test_a_foreign_pickle_is_refused_by_name_and_not_run(
    checkpoint_copy: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = checkpoint_copy("zero2-1")
    path = folder / TAG / "mp_rank_00_model_states.pt"
    saved = torch.load(path, weights_only=False)
    marker = tmp_path / "it-was-run"
    torch.save(saved | {"client": Planted(marker)}, path)
    with pytest.raises(ConversionError, match=r"wants posix\.system"):
        read(folder)
    assert not marker.exists()


class ByName:
    """An attribute as Python 3.11.2 writes a member of an enumeration."""

    def __init__(self, of: object, name: str) -> None:
        self.of, self.name = of, name

    def __reduce__(self) -> Any:
        return (getattr, (self.of, self.name))


def test_an_enumeration_written_by_name_is_read(tmp_path: Path) -> None:
    torch.save({"stage": ByName(ZeroStageEnum, "weights")}, tmp_path / "saved.pt")
    assert Archive(FileSource(tmp_path / "saved.pt")).value["stage"].arguments == ("weights",)


def test_any_other_attribute_is_refused(tmp_path: Path) -> None:
    torch.save({"stage": ByName(torch.Size, "mro")}, tmp_path / "saved.pt")
    with pytest.raises(ConversionError, match="getattr"):
        Archive(FileSource(tmp_path / "saved.pt"))


def test_a_full_disk_is_one_clear_error(zero_checkpoints: Path, tmp_path: Path) -> None:
    shards = shard_writer.plan_shards(read(zero_checkpoints / "zero3-2").tensors.values(), torch.float32)
    with pytest.raises(ConversionError, match="cannot take"):
        shard_writer.write_shards([replace(shards[0], size=1 << 60)], tmp_path)
