"""Reads the `.pt` files of a DeepSpeed checkpoint as tensors, plain values, and DeepSpeed's own inert classes."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from mantis.artifacts.tensor_files import check_names, read_tensors


def _stage_by_name(kind: object, name: str) -> ZeroStageEnum:
    """Stand in for `getattr`: Python 3.11.0 to 3.11.3 pickle a member of an enumeration as getattr(class, name)."""
    stages = {stage.name: stage for stage in ZeroStageEnum}
    if kind is not ZeroStageEnum or name not in stages:
        raise pickle.UnpicklingError(f"getattr of {kind!r} and {name!r}")
    return stages[name]


# DeepSpeed saves objects of these classes and needs them back. Each only holds the numbers of its state.
INERT: tuple[Any, ...] = (
    LossScaler,
    DynamicLossScaler,
    ZeroStageEnum,
    fragment_address,
    (_stage_by_name, "builtins.getattr"),
    (_stage_by_name, "__builtin__.getattr"),
)


def map_shards(path: Path) -> Any:
    """The saved object of a `.pt` file, with its tensors on disk until they are used.

    Raises:
        IntegrityError: the file holds more than tensors, plain values and `INERT`.
    """
    return read_tensors(path, inert=INERT, mapped=True)


def check_files(folder: Path) -> None:
    """Check the names in every `.pt` file of `folder`, and load nothing.

    Raises:
        IntegrityError: a file wants to run code.
    """
    for path in sorted(folder.glob("*.pt")):
        check_names(path, inert=INERT)


@contextmanager
def tensors_only(engine: Any) -> Iterator[None]:
    """Within this context, the DeepSpeed engine reads every file of a checkpoint through `read_tensors`."""
    usual = engine.checkpoint_engine
    engine.checkpoint_engine = _TensorsOnly(usual)
    try:
        yield
    finally:
        engine.checkpoint_engine = usual


class _TensorsOnly:
    """DeepSpeed's checkpoint engine with another `load`."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def load(self, path: str, map_location: Any = None) -> Any:
        return read_tensors(Path(path), inert=INERT, map_location=map_location)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)
