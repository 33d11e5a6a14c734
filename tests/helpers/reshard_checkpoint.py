"""On every rank: save a small engine's checkpoint, or load one of any layout into an engine of other weights.

Arguments: save | load, ZeRO stage, folder, and for load the saving world size, its stage, and a file for what was read.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch

from components.training.checkpointing.reshard import MOMENTS, Shards, load_resharded
from components.training.checkpointing.snapshot import Snapshot, write_hashed
from components.training.engine.deepspeed_engine import join_ranks, leave_ranks
from components.training.engine.lean_deepspeed import deepspeed
from components.training.engine.parameter_groups import adamw_groups, parameter_groups
from mantis.config.training_settings import PartSettings, TrainingSettings

TAG = "step-00000003"


class Model(torch.nn.Module):
    """Odd sizes, two frozen parameters and a buffer: nothing divides by two or four."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.frozen = torch.nn.Linear(7, 13), torch.nn.Linear(13, 9)
        self.norm, self.last = torch.nn.LayerNorm(9), torch.nn.Linear(9, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("seen", torch.full((5,), float(seed)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.norm(self.frozen(torch.tanh(self.first(values))))).square().mean()
        return result


class Parts:
    """The first layer is of another part than the rest, so there are three groups."""

    def parameter_group(self, parameter: str) -> str:
        return "vision" if parameter.startswith("first") else "text"


SETTINGS = TrainingSettings(
    learning_rate=1e-2,
    weight_decay=0.1,
    train=("vision", "text"),
    parts={"vision": PartSettings(learning_rate=3e-3)},
)


def build(stage: int, seed: int) -> Any:
    model, kind = Model(seed), cast(Any, Parts())
    optimizer = torch.optim.AdamW(adamw_groups(model, parameter_groups(model, kind, SETTINGS)), fused=True)
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}}
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def steps(engine: Any, first: int, count: int) -> None:
    """The same samples on every rank, so that the world size changes nothing."""
    for step in range(first, first + count):
        torch.manual_seed(100 + step)
        engine.backward(engine(torch.randn(4, 7)))
        engine.step()


def whole_state(engine: Any) -> dict[str, torch.Tensor]:
    """Everything that training goes on from, gathered: weights, masters, moments, buffers."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):
        # ZeRO-2 links parameters to their moments when the first of its groups has been updated, so only that one's.
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    found = {"buffer seen": engine.module.seen.clone()}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            found[f"weight {name}"] = parameter.detach().clone()
        if parameter.requires_grad:
            found[f"master {name}"] = safe_get_full_fp32_param(parameter).view_as(found[f"weight {name}"]).clone()
            for kind in MOMENTS:
                found[f"{kind} {name}"] = safe_get_full_optimizer_state(parameter, kind).flatten().clone()
    return found


def save(stage: str, folder: str) -> None:
    ranks = join_ranks()
    engine = build(int(stage), seed=1)
    steps(engine, 0, 3)
    digests = save_at_once(engine, Path(folder))
    snapshot = Snapshot()
    waits = AssertionError("a rank that copies its state waits for another one")
    barrier = patch.object(torch.distributed, "barrier", side_effect=waits)
    with barrier, patch.object(deepspeed.comm, "all_reduce", side_effect=waits), snapshot.taking(engine):
        engine.save_checkpoint(f"{folder}/in-memory", tag=TAG, save_latest=False)
    assert not Path(folder, "in-memory").exists()
    # The files hold the state of the save, although forward and backward run before the copy, and an update after it.
    torch.manual_seed(150)
    engine.backward(engine(torch.randn(4, 7)))
    snapshot.copy()
    engine.step()
    Path(folder, TAG).mkdir(exist_ok=True)
    if {file.name: file.sha256 for file in snapshot.write(Path(folder, TAG))} != digests:
        raise SystemExit("the files of the snapshot are not those of a synchronous save")
    other = build(int(stage), seed=1)
    steps(other, 0, 3)
    before = whole_state(other)
    steps(other, 3, 2)
    after = whole_state(other)
    if ranks.is_main:
        torch.save((before, after), f"{folder}/expected.pt")
    leave_ranks()


def save_at_once(engine: Any, folder: Path) -> dict[str, str]:
    """Hashes of the files of a synchronous save."""
    usual = engine.checkpoint_engine
    engine.checkpoint_engine = direct = Direct(usual, folder / "direct")
    engine.save_checkpoint(f"{folder}/unused", tag=TAG, save_latest=False)
    engine.checkpoint_engine = usual
    return direct.digests


class Direct:
    """DeepSpeed's checkpoint engine, writing at once what Snapshot writes later."""

    def __init__(self, usual: Any, folder: Path) -> None:
        self.usual, self.folder = usual, folder
        self.digests: dict[str, str] = {}
        folder.mkdir(exist_ok=True)

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        name = Path(path).name
        self.digests[name] = write_hashed(state_dict, self.folder / name).sha256

    def __getattr__(self, name: str) -> Any:
        return getattr(self.usual, name)


def load(stage: str, folder: str, world: str, saved_stage: str, out: str) -> None:
    ranks = join_ranks()
    engine = build(int(stage), seed=2)
    shards = Shards(Path(folder, TAG), world_size=int(world), zero_stage=int(saved_stage))
    load_resharded(engine, shards, rank=ranks.rank)
    before = whole_state(engine)
    steps(engine, 3, 2)
    after = whole_state(engine)
    if ranks.is_main:
        torch.save((before, after), out)
    leave_ranks()


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"save": save, "load": load}
    commands[sys.argv[1]](*sys.argv[2:])
