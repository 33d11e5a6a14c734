"""The images of a recipe's benchmarks, for who must not import evaluation.

A benchmark's images are the image files below `<evaluation.source>/<benchmark>/`, whatever its questions do with them.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core import demo_tasks
from components.core.settings import Recipe
from components.core.store import Entry, ObjectStore, concurrently, open_store
from components.core.store_local import LocalStore

GENERATED = "generated"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class BenchmarkImage:
    """An encoded image, its path relative to the benchmark's folder."""

    benchmark: str
    path: str
    data: bytes


def benchmark_files(recipe: Recipe) -> dict[str, tuple[ObjectStore, list[Entry]]]:
    """The image files of each benchmark whose source is an address, with the store that they lie in."""
    if recipe.evaluation.source == GENERATED:
        return {}
    store = _open(recipe.evaluation.source)
    return {name: (store, _images_below(store, name)) for name in recipe.evaluation.benchmarks}


def benchmark_images(recipe: Recipe) -> Iterator[BenchmarkImage]:
    """Every image of every benchmark of the recipe; generated ones are made first."""
    if recipe.evaluation.source != GENERATED:
        for name, (store, files) in benchmark_files(recipe).items():
            yield from _read(store, name, files)
        return
    with tempfile.TemporaryDirectory(prefix="mantis-benchmark-") as folder:
        store = LocalStore(Path(folder))
        for name in recipe.evaluation.benchmarks:
            # By one worker, which forks nothing: this process may have threads of Lance.
            amount = recipe.evaluation.samples_per_skill
            demo_tasks.write_demo_benchmark(store.root, name, seed=recipe.seed, samples_per_skill=amount, workers=1)
            yield from _read(store, name, _images_below(store, name))


def _open(source: str) -> ObjectStore:
    return open_store(source.rstrip("/")) if "://" in source else LocalStore(Path(source).expanduser())


def _images_below(store: ObjectStore, name: str) -> list[Entry]:
    return [entry for entry in store.list(name) if entry.key.lower().endswith(IMAGE_SUFFIXES)]


def _read(store: ObjectStore, name: str, files: list[Entry]) -> Iterator[BenchmarkImage]:
    for start in range(0, len(files), AT_ONCE):
        part = files[start : start + AT_ONCE]
        for entry, data in zip(part, concurrently(lambda entry: store.get(entry.key), part), strict=True):
            yield BenchmarkImage(benchmark=name, path=entry.key.removeprefix(f"{name}/"), data=data)
