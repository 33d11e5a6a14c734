"""Copies a checkpoint's state into memory, so that training continues while a thread pickles, hashes and stores it.

DeepSpeed passes every file of a checkpoint to its checkpoint engine as (state, path). During one call of
`save_checkpoint`, a replacement engine copies the states into a `Snapshot`. The copies use host memory that is kept for
the next save, because fresh pages cost more than the copy. It holds one checkpoint of this rank at most.

Only the optimizer's update changes the tensors of the optimizer's file, which are nearly all of the state. So `copy`
copies them later, in the thread, while the next forward and backward run. `wait_until_copied` precedes the update.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, UntypedStorage, nn

from components.training.engine.lean_deepspeed import deepspeed
from mantis.artifacts.manifest import File

OPTIMIZER_FILE = "optim_states"  # part of DeepSpeed's name of the file with masters and moments


class Snapshot:
    """Holds the copy of one checkpoint: `taking`, then `copy`, then `write`. The next `taking` reuses the memory."""

    def __init__(self) -> None:
        self._memory: list[UntypedStorage] = []
        self._used = 0
        self._files: dict[str, Any] = {}
        self._later: list[tuple[UntypedStorage, UntypedStorage]] = []  # (memory, source)
        self._defers = False  # whether the file that is being kept is the optimizer's
        self._is_copied = threading.Event()
        self._is_copied.set()

    @contextmanager
    def taking(self, engine: Any) -> Iterator[None]:
        """Within this context, the DeepSpeed engine saves into memory; the copy before is dropped.

        Afterwards the large tensors of the optimizer wait for `copy`, which must run before the next update.

        The engine makes no folder and writes no file, whatever folder it is given: training would wait for the disk.
        No rank waits for another one, except that DeepSpeed gathers the small parameters that ZeRO-3 keeps whole.
        """
        self._files, self._used, self._later = {}, 0, []
        self._is_copied.clear()
        usual, barrier = engine.checkpoint_engine, deepspeed.comm.barrier
        engine.checkpoint_engine = _Keeping(usual, self._keep)
        engine._copy_recovery_script = _nothing  # it copies DeepSpeed's zero_to_fp32.py beside every checkpoint
        engine._checkpoint_tag_validation = _nothing  # two collectives compare the tag, which is the step
        deepspeed.comm.barrier = _nothing  # two others wait for folders that nobody makes
        try:
            yield
        except BaseException:
            self._is_copied.set()  # no `copy` follows
            raise
        finally:
            engine.checkpoint_engine, deepspeed.comm.barrier = usual, barrier
            del engine._copy_recovery_script, engine._checkpoint_tag_validation

    def copy(self) -> None:
        """Copy the optimizer's tensors. A thread may call it while the model computes."""
        try:
            for memory, source in self._later:
                _bytes(memory).copy_(_bytes(source))
        finally:
            self._later = []
            self._is_copied.set()

    def wait_until_copied(self) -> None:
        """Return when `copy` is done, or at once without a copy under way: then an update may change the tensors."""
        self._is_copied.wait()

    def write(self, folder: Path) -> list[File]:
        """Pickle every file into `folder`; returns names, sizes and hashes, which are computed while writing.

        Raises:
            OSError: the disk is full or away.
        """
        return [write_hashed(state, folder / name) for name, state in self._files.items()]

    def _keep(self, state: Any, path: str) -> None:
        name = Path(path).name
        self._defers = OPTIMIZER_FILE in name
        self._files[name] = self._copy(state, {})

    def _copy(self, value: Any, seen: dict[Any, Any]) -> Any:
        """Copy `value` with its tensors. Shared objects and memory stay shared, so the file stays the same."""
        if id(value) not in seen:
            seen[id(value)] = self._copied(value, seen)
        return seen[id(value)]

    def _copied(self, value: Any, seen: dict[Any, Any]) -> Any:
        if isinstance(value, Tensor):
            return self._copied_tensor(value, seen)
        if isinstance(value, dict):
            copy = value.__class__()
            copy.update({key: self._copy(inner, seen) for key, inner in value.items()})
            if hasattr(value, "__dict__"):  # torch puts _metadata on a state dict
                copy.__dict__.update(self._copy(vars(value), seen))
            return copy
        if type(value) in (list, tuple):
            return type(value)(self._copy(inner, seen) for inner in value)
        return deepcopy(value)

    def _copied_tensor(self, tensor: Tensor, seen: dict[Any, Any]) -> Tensor:
        source = tensor.untyped_storage()
        # Two Python objects can stand for one storage, so the storage's own address identifies it.
        if ("storage", source._cdata) not in seen:
            seen["storage", source._cdata] = self._filled(source)
        storage = seen["storage", source._cdata]
        copy = torch.empty(0, dtype=tensor.dtype)
        copy.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
        if isinstance(tensor, nn.Parameter):
            copy = nn.Parameter(copy)
        copy.requires_grad_(tensor.requires_grad)
        copy.__dict__.update(self._copy(vars(tensor), seen))  # DeepSpeed's attributes are pickled too
        return copy

    def _filled(self, source: UntypedStorage) -> UntypedStorage:
        """Copy `source` into the memory that the same position of the last save used."""
        if self._used == len(self._memory):
            self._memory.append(_memory(0))
        if self._memory[self._used].nbytes() != source.nbytes():
            self._memory[self._used] = _memory(source.nbytes())
        memory = self._memory[self._used]
        self._used += 1
        if self._defers:
            self._later.append((memory, source))
        else:
            memory.copy_(source)
        return memory


def _memory(count: int) -> UntypedStorage:
    return torch.empty(count, dtype=torch.uint8).untyped_storage()


def _bytes(storage: UntypedStorage) -> Tensor:
    """View `storage` as a tensor, whose `copy_` lets other Python threads run; a storage's own does not."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _nothing(*_: object) -> None:
    """Stand in for what one rank does alone, or need not do."""


class _Keeping:
    """DeepSpeed's checkpoint engine with another `save`: it passes the state on instead of writing it."""

    def __init__(self, usual: Any, keep: Callable[[Any, str], None]) -> None:
        self._usual, self._keep = usual, keep

    def save(self, state_dict: Any, path: str) -> None:
        self._keep(state_dict, path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make no folder: nothing is written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


class _HashedFile:
    """A file for writing that hashes the bytes on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        self._file.write(view)
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()


def write_hashed(state: Any, path: Path) -> File:
    """`torch.save` that hashes the bytes on the way."""
    with path.open("wb") as raw:
        file = _HashedFile(raw)
        torch.save(state, cast(IO[bytes], file))  # torch.save only needs write and flush
    return File(name=path.name, size=file.size, sha256=file.digest.hexdigest())
