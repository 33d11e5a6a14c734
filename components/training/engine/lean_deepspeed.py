"""Imports DeepSpeed without the parts that training never uses; they take seven seconds of a core per rank.

- DeepSpeed's autotuner imports MLflow.
- DeepSpeed asks every optimizer whether it is Muon. Muon's module compiles functions, so torch imports its compiler.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# DeepSpeed picks its accelerator at import. Without this, it looks for a GPU toolchain on a machine without GPUs.
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

AUTOTUNER_IMPORTS = "mlflow"
MUON = "deepspeed.runtime.zero.muon.original_muon"


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let imports of the module `name` fail, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own mark of a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Let torch.compile return functions as they are."""

    def as_it_is(function: Callable[..., Any] | None = None, **options: Any) -> Any:
        return function or (lambda decorated: decorated)

    usual = torch.compile
    torch.compile = as_it_is  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = usual


with _absent(AUTOTUNER_IMPORTS):
    import deepspeed

with _uncompiled(), suppress(ImportError):  # older versions of DeepSpeed have no Muon
    importlib.import_module(MUON)

__all__ = ["deepspeed"]
