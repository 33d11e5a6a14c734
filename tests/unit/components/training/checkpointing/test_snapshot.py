"""A copy of a checkpoint's state in memory: equal, independent, with shared memory still shared."""

import hashlib
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.training.checkpointing.snapshot import Snapshot, write_hashed
from components.training.engine.lean_deepspeed import deepspeed


class Usual:
    """DeepSpeed's checkpoint engine."""

    name = "usual"

    def save(self, state: Any, path: str) -> None:
        raise AssertionError("the usual save was called")

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError("a folder was made")


class Engine:
    """What a snapshot needs of a DeepSpeed engine."""

    def __init__(self) -> None:
        self.checkpoint_engine: Any = Usual()

    def _copy_recovery_script(self, path: str) -> None:
        raise AssertionError("the script was copied")

    def _checkpoint_tag_validation(self, tag: str) -> None:
        raise AssertionError("the tag was compared")

    def save_checkpoint(self, states: dict[str, Any]) -> None:
        self.checkpoint_engine.makedirs("folder", exist_ok=True)
        self._checkpoint_tag_validation("tag")
        deepspeed.comm.barrier()
        for name, state in states.items():
            self.checkpoint_engine.save(state, f"in-memory/step-1/{name}")
        assert self.checkpoint_engine.name == "usual"
        self._copy_recovery_script("folder")


def taken(snapshot: Snapshot, states: dict[str, Any], folder: Path) -> dict[str, Any]:
    engine = Engine()
    usual, barrier = engine.checkpoint_engine, deepspeed.comm.barrier
    with snapshot.taking(engine):
        engine.save_checkpoint(states)
    assert engine.checkpoint_engine is usual
    assert deepspeed.comm.barrier is barrier
    with pytest.raises(AssertionError, match="script"):
        engine._copy_recovery_script("folder")
    with pytest.raises(AssertionError, match="compared"):
        engine._checkpoint_tag_validation("tag")
    folder.mkdir()
    snapshot.copy()
    files = snapshot.write(folder)
    assert [file.name for file in files] == list(states)
    return {file.name: torch.load(folder / file.name, weights_only=False) for file in files}


def state() -> dict[str, Any]:
    whole = torch.arange(12, dtype=torch.float32)
    weight = nn.Parameter(whole[:4].view(2, 2))
    frozen = nn.Parameter(torch.ones(2, dtype=torch.bfloat16), requires_grad=False)
    weight.ds_id = [7]  # type: ignore[attr-defined]
    module = nn.Linear(2, 2).state_dict()
    return {
        "whole": whole,
        "view": whole[4:8],
        "across": whole.view(3, 4).t(),
        "weight": weight,
        "frozen": frozen,
        "module": module,
        "nested": [{"a": (1, "two", None)}, whole],
        "set": {1, 2},
    }


def test_a_copy_is_equal_and_keeps_what_is_shared(tmp_path: Path) -> None:
    given = state()
    found = taken(Snapshot(), {"states.pt": given}, tmp_path / "files")["states.pt"]
    assert found.keys() == given.keys()
    for name in ("whole", "view", "across", "weight", "frozen"):
        assert torch.equal(found[name], given[name]), name
        assert found[name].dtype == given[name].dtype
        assert found[name].stride() == given[name].stride()
        assert found[name].requires_grad == given[name].requires_grad
        assert type(found[name]) is type(given[name])
    shared = found["whole"].untyped_storage().data_ptr()
    for name in ("view", "across", "weight"):
        assert found[name].untyped_storage().data_ptr() == shared, name
    assert found["frozen"].untyped_storage().data_ptr() != shared
    assert found["nested"][1] is found["whole"]
    assert (found["nested"][0], found["set"]) == ({"a": (1, "two", None)}, {1, 2})
    assert found["module"]._metadata == given["module"]._metadata
    assert found["weight"].ds_id == [7]


def test_a_copy_stays_as_it_was_when_training_goes_on(tmp_path: Path) -> None:
    snapshot, engine, given = Snapshot(), Engine(), state()
    with snapshot.taking(engine):
        engine.save_checkpoint({"states.pt": given})
    expected = given["whole"].clone()
    with torch.no_grad():
        given["whole"].add_(1)
        given["weight"].ds_id.append(8)
        given["set"].add(3)
    (file,) = snapshot.write(tmp_path)
    found = torch.load(tmp_path / file.name, weights_only=False)
    assert torch.equal(found["whole"], expected)
    assert (found["weight"].ds_id, found["set"]) == ([7], {1, 2})


def test_an_update_waits_until_the_optimizer_is_copied(tmp_path: Path) -> None:
    snapshot, engine = Snapshot(), Engine()
    snapshot.wait_until_copied()  # nothing is saved yet
    model, optimizer = torch.zeros(1000), torch.zeros(1000)
    with snapshot.taking(engine):
        engine.save_checkpoint({"model_states.pt": model, "zero_optim_states.pt": optimizer})
    model.add_(1)  # copied already: a forward pass may change a buffer
    updating = Thread(target=lambda: (snapshot.wait_until_copied(), optimizer.add_(1)))
    updating.start()
    updating.join(0.05)
    assert updating.is_alive()
    assert not optimizer.any()
    snapshot.copy()
    updating.join()
    assert optimizer.all()
    for file in snapshot.write(tmp_path):
        assert not torch.load(tmp_path / file.name).any(), file.name


def test_an_update_does_not_wait_for_a_copy_that_failed() -> None:
    snapshot, engine = Snapshot(), Engine()
    with pytest.raises(RuntimeError, match="away"), snapshot.taking(engine):
        raise RuntimeError("away")
    snapshot.wait_until_copied()
    source = torch.zeros(1000)
    with snapshot.taking(engine):
        engine.save_checkpoint({"optim_states.pt": source})
    source.untyped_storage().resize_(0)  # what is to be copied is gone
    with pytest.raises(RuntimeError):
        snapshot.copy()
    snapshot.wait_until_copied()


def test_the_next_copy_takes_the_memory_of_the_last(tmp_path: Path) -> None:
    def addresses(snapshot: Snapshot) -> list[int]:
        return [memory.data_ptr() for memory in snapshot._memory]

    snapshot = Snapshot()
    states: dict[str, Tensor] = {"a.pt": torch.zeros(1000), "b.pt": torch.zeros(500)}
    taken(snapshot, states, tmp_path / "first")
    first = addresses(snapshot)
    again = taken(snapshot, {"a.pt": torch.ones(1000), "b.pt": torch.full((500,), 2.0)}, tmp_path / "second")
    assert addresses(snapshot) == first
    assert [float(again[name].sum()) for name in ("a.pt", "b.pt")] == [1000, 1000]
    grown = taken(snapshot, {"a.pt": torch.ones(1000), "b.pt": torch.ones(700)}, tmp_path / "third")
    assert addresses(snapshot)[0] == first[0]
    assert [len(grown[name]) for name in ("a.pt", "b.pt")] == [1000, 700]
    assert [memory.nbytes() for memory in snapshot._memory] == [4000, 2800]
    fewer = taken(snapshot, {"a.pt": torch.full((1000,), 3.0)}, tmp_path / "fourth")
    assert set(fewer) == {"a.pt"}


def test_an_engine_gets_its_own_back_after_an_error() -> None:
    engine, barrier = Engine(), deepspeed.comm.barrier
    usual = engine.checkpoint_engine
    with pytest.raises(RuntimeError, match="away"), Snapshot().taking(engine):
        raise RuntimeError("away")
    assert engine.checkpoint_engine is usual
    assert deepspeed.comm.barrier is barrier
    with pytest.raises(AssertionError, match="script"):
        engine._copy_recovery_script("folder")


def test_a_file_is_hashed_as_it_is_written(tmp_path: Path) -> None:
    file = write_hashed({"values": torch.arange(100_000)}, tmp_path / "states.pt")
    data = (tmp_path / "states.pt").read_bytes()
    assert (file.name, file.size, file.sha256) == ("states.pt", len(data), hashlib.sha256(data).hexdigest())
    assert torch.equal(torch.load(tmp_path / "states.pt")["values"], torch.arange(100_000))
