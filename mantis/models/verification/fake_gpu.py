"""A GPU without one: tensors on `cuda` are fake, tensors on the host are real.

Fake tensors have a shape, a dtype and a device, and no values. torch computes the shapes of results. As a GPU does, it
refuses operands on two devices and products of two dtypes. Code that needs a value, such as `.item()`, fails: on a
GPU it would wait until all queued kernels have run.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mantis.models.packed_batch import ON_HOST, PackedBatch

GPU = torch.device("cuda", 0)
TORCH = f"{Path(torch.__file__).parent}/"


class ReadBackError(RuntimeError):
    """Code asked the GPU for a value, and would have waited for it."""


@contextmanager
def fake_gpu(*, reads_of: str = "") -> Iterator[list[str]]:
    """Within this context, tensors on `cuda` are fake. It yields the names of the operators that run on them.

    Args:
        reads_of: code in files whose path holds this text may read a value back. It gets 0.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    operators: list[str] = []
    with mode, _HostIsReal(mode, operators, reads_of):
        yield operators


def to_fake_gpu(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace all weights of `model` by fake ones of this dtype on the GPU; call it within `fake_gpu`."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fake = torch.empty(parameter.shape, dtype=dtype, device=GPU)
            setattr(module, name, nn.Parameter(fake, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            kind = dtype if buffer.is_floating_point() else buffer.dtype
            setattr(module, name, torch.empty(buffer.shape, dtype=kind, device=GPU))
    return model


def on_fake_gpu(batch: PackedBatch, dtype: torch.dtype) -> PackedBatch:
    """The batch as training moves it to a GPU; call it within `fake_gpu`."""
    moved = {field.name: getattr(batch, field.name).to(GPU) for field in fields(batch) if field.name not in ON_HOST}
    return replace(batch, **moved | {"pixel_values": batch.pixel_values.to(GPU, dtype)})


class _HostIsReal(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Computes with host tensors for real, and refuses copies from the GPU to the host."""

    def __init__(self, fake: FakeTensorMode, operators: list[str], reads_of: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake, self._operators, self._reads_of = fake, operators, reads_of

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        leaves = tree_leaves((args, given))
        fake = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        if not fake and not any(isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves):
            with unset_fake_temporarily():
                return func(*args, **given)
        self._operators.append(str(func))
        try:
            with self._fake:
                result = func(*args, **given)
        except (DataDependentOutputException, DynamicOutputShapeException):
            if self._reads_of and self._reads_of in _caller():
                return 0
            raise ReadBackError(f"{func} needs a value that lies on the GPU.") from None
        copied = any(isinstance(leaf, FakeTensor) and leaf.device.type != "cuda" for leaf in tree_leaves(result))
        if copied:
            raise ReadBackError(f"{func} copies a tensor from the GPU to the host.")
        return result


def _caller() -> str:
    """The file of the innermost code that is not torch's or this file's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (TORCH in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return frame.f_code.co_filename
