"""Where a benchmark's samples come from: generated here, a folder, or a store."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.settings import Recipe
from components.core.store import ObjectStore, download_tree, open_store
from components.core.store_local import LocalStore
from components.evaluation.benchmarks import Benchmark
from components.evaluation.reader import Sample, folder_identity, read_samples


@dataclass(frozen=True, kw_only=True)
class Source:
    """`identity` decides the samples; they are read, or generated, only when `samples` is called."""

    identity: dict[str, Any]
    samples: Callable[[], list[Sample]]


@contextmanager
def open_source(recipe: Recipe, benchmark: Benchmark) -> Iterator[Source]:
    """The source of `benchmark`, `<evaluation.source>/<benchmark>/`; its pictures can be read until it is closed.

    Raises:
        InputError: see `read_samples`.
    """
    with tempfile.TemporaryDirectory(prefix="mantis-benchmark-") as temporary:
        if recipe.evaluation.source == "generated":
            yield _generated(recipe, benchmark, Path(temporary))
        else:
            folder = _folder(recipe.evaluation.source, benchmark.name, Path(temporary))
            samples = read_samples(folder, benchmark)
            identity = {"content": folder_identity(folder, benchmark, samples)}
            yield Source(identity=identity, samples=lambda: samples)


def local_copy(store: ObjectStore, prefix: str, temporary: Path) -> Path:
    """A folder with the objects under `prefix`: the store's own where it is one, else a copy below `temporary`."""
    if isinstance(store, LocalStore):
        return store.root / prefix
    download_tree(store, prefix, temporary / prefix)
    return temporary / prefix


def _folder(source: str, name: str, temporary: Path) -> Path:
    if "://" in source:
        return local_copy(open_store(source), name, temporary)
    return Path(source).expanduser() / name


def _generated(recipe: Recipe, benchmark: Benchmark, temporary: Path) -> Source:
    from components.core import demo_tasks

    amount = recipe.evaluation.samples_per_skill

    def samples() -> list[Sample]:
        demo_tasks.write_demo_benchmark(temporary, benchmark.name, seed=recipe.seed, samples_per_skill=amount)
        return read_samples(temporary / benchmark.name, benchmark)

    identity = {"generated": demo_tasks.REVISION, "seed": recipe.seed, "samples_per_skill": amount}
    return Source(identity=identity, samples=samples)
