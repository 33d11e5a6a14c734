"""Objects of DeepSpeed in a checkpoint: the inert ones are read, every other name is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from components.training.checkpointing.deepspeed_files import check_files, map_shards, tensors_only
from mantis.errors import IntegrityError
from tests.helpers.planted_code import Planted, PlantedByName


def test_objects_that_deepspeed_saves_are_read(tmp_path: Path) -> None:
    saved = {
        "loss_scaler": LossScaler(scale=4.0),
        "zero_stage": ZeroStageEnum.weights,
        "by name": PlantedByName(ZeroStageEnum, "gradients"),
        "mapping": {"a": fragment_address(numel=3, start=7)},
        "flat": torch.ones(3),
    }
    torch.save(saved, tmp_path / "states.pt")
    check_files(tmp_path)
    found = map_shards(tmp_path / "states.pt")
    assert found["loss_scaler"].cur_scale == 4.0
    assert (found["zero_stage"], found["by name"]) == (3, ZeroStageEnum.gradients)
    assert found["mapping"] == saved["mapping"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (PlantedByName(ZeroStageEnum, "__class__"), "cannot be read as tensors"),
        (PlantedByName(LossScaler, "__init__"), "cannot be read as tensors"),
        (PlantedByName(DeepSpeedCPUAdam, "step"), "wants deepspeed.ops.adam"),
        (os.getcwd, r"wants posix\.getcwd"),
    ],
)
def test_another_name_is_refused(tmp_path: Path, value: Any, said: str) -> None:
    torch.save({"value": value}, tmp_path / "states.pt")
    with pytest.raises(IntegrityError, match=said):
        map_shards(tmp_path / "states.pt")


def test_an_inert_object_cannot_carry_code(tmp_path: Path) -> None:
    scaler, marker = LossScaler(scale=1.0), tmp_path / "it-was-run"
    scaler.cur_scale = Planted(marker)
    torch.save({"loss_scaler": scaler}, tmp_path / "states.pt")
    with pytest.raises(IntegrityError, match=r"wants posix\.system"):
        check_files(tmp_path)
    assert not marker.exists()


class Engine:
    """A DeepSpeed engine that holds a checkpoint engine."""

    def __init__(self) -> None:
        self.checkpoint_engine: Any = Usual()


class Usual:
    """DeepSpeed's checkpoint engine; its `load` would run code."""

    def load(self, path: str, map_location: Any = None) -> Any:
        raise AssertionError("the usual load was called")

    def is_decoupled(self) -> bool:
        return False


def test_the_engine_loads_through_the_reader_and_gets_its_own_back(tmp_path: Path) -> None:
    torch.save({"client": Planted(tmp_path / "it-was-run")}, tmp_path / "states.pt")
    engine = Engine()
    usual = engine.checkpoint_engine
    with tensors_only(engine):
        assert not engine.checkpoint_engine.is_decoupled()
        with pytest.raises(IntegrityError):
            engine.checkpoint_engine.load(str(tmp_path / "states.pt"), map_location="cpu")
    assert engine.checkpoint_engine is usual
    assert not (tmp_path / "it-was-run").exists()
