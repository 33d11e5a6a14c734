"""The library that components share. It imports no component and no pipeline.

It is also the door for Python programs: `import mantis` imports nothing yet. The names of API come from the module
`pipelines.api` when they are first used. docs/reference/python.md describes them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import (
        LoadedMixture,
        load_mixture,
        load_model,
        load_recipe,
        prepare_mixture,
        rescore,
        start_training,
    )

__all__ = ["LoadedMixture", "load_mixture", "load_model", "load_recipe", "prepare_mixture", "rescore", "start_training"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pipelines.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
