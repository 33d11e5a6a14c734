"""Reads files of torch.save that come from a store: tensors and plain values, and no code.

Everyone who can write to a store can replace a file of it, and hashes beside the file do not help against that. So
torch reads it with `weights_only=True`. It calls no function and builds no object that is not on a list.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mantis.errors import IntegrityError

REMEDY = "Do not open this file with other tools: it may run code. Find out who wrote it, and delete it."


def read_tensors(path: Path, *, inert: Sequence[Any] = (), mapped: bool = False, map_location: Any = "cpu") -> Any:
    """Return the object that torch.save wrote to `path`.

    Args:
        path: the file.
        inert: classes that may occur beside tensors and plain values, as `torch.serialization.safe_globals` takes them.
        mapped: keep the tensors on disk until they are used.
        map_location: as in torch.load.

    Raises:
        IntegrityError: the file names another function or class, or is no torch.save file.
    """
    check_names(path, inert=inert)
    try:
        with torch.serialization.safe_globals(list(inert)):
            return torch.load(path, map_location=map_location, mmap=mapped, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).partition("\n")[0]
        raise IntegrityError(f"{path.name} cannot be read as tensors ({first}).", remedy=REMEDY) from None


def check_names(path: Path, *, inert: Sequence[Any] = ()) -> None:
    """Check every function and class that the file names, and build nothing from it.

    Raises:
        IntegrityError: one of them is neither torch's nor in `inert`, or the file is no torch.save file.
    """
    try:
        with torch.serialization.safe_globals(list(inert)):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # a planted pickle can fail in any way, and no traceback helps
        first = str(error).partition("\n")[0]
        raise IntegrityError(f"{path.name} is not a file of torch.save ({first}).", remedy=REMEDY) from None
    if names:
        raise IntegrityError(
            f"{path.name} wants {sorted(names)[0]}, which no file of tensors needs. None of its code was run.",
            remedy=REMEDY,
        )
