"""The images of a recipe's benchmarks, for who must not import evaluation.

A benchmark's images are the image files and the images within Parquet files below its folder, whatever its questions do
with them. The folder is `<evaluation.source>/<benchmark>/`, or what `mantis benchmark fetch` mirrored into the store.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mantis import synthetic
from mantis.artifacts.layout import mirrored_files, revisions_of_benchmark
from mantis.artifacts.manifest import MANIFEST
from mantis.artifacts.source_names import GENERATED, MIRROR
from mantis.config.recipe import Recipe
from mantis.errors import InputError
from mantis.store.base import ObjectStore, StoredObject, concurrently
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from mantis.store.parquet_file import RefusedRow, open_parquet

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PARQUET_SUFFIX = ".parquet"
AT_ONCE = 256  # files


@dataclass(frozen=True, kw_only=True)
class BenchmarkImage:
    """An encoded image; its path relative to the benchmark's folder, in a Parquet file `<path>#<row>/<column>`."""

    benchmark: str
    path: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class BenchmarkFiles:
    """The files of a benchmark that are or hold images; `folder` is the part of their keys that paths leave out."""

    store: ObjectStore
    folder: str
    entries: tuple[StoredObject, ...]


def benchmark_files(recipe: Recipe, store: ObjectStore) -> dict[str, BenchmarkFiles]:
    """The files with images of each benchmark that is not generated; `store` is the run's own, which holds mirrors."""
    settings = recipe.evaluation
    found = {}
    for name in settings.benchmarks:
        own = settings.own_benchmarks.get(name, {})
        if own.get("stored") or (settings.source == MIRROR and not own.get("source")):
            found[name] = _mirrored(store, name)
        elif own.get("source"):
            found[name] = _files(_open(str(own["source"])), "", "")
        elif settings.source != GENERATED:
            found[name] = _files(_open(settings.source), name, name)
    return found


def benchmark_images(recipe: Recipe, store: ObjectStore) -> Iterator[BenchmarkImage]:
    """Every image of every benchmark of the recipe; generated ones are made first.

    Raises:
        InputError: a Parquet file cannot be read.
    """
    found = benchmark_files(recipe, store)
    for name, files in found.items():
        yield from _read(name, files)
    with tempfile.TemporaryDirectory(prefix="mantis-benchmark-") as folder:
        made = LocalStore(Path(folder))
        for name in recipe.evaluation.benchmarks:
            if name not in found:
                # By one worker, which forks nothing: this process may have threads of Lance.
                amount = recipe.evaluation.samples_per_skill
                synthetic.write_demo_benchmark(made.root, name, seed=recipe.seed, samples_per_skill=amount, workers=1)
                yield from _read(name, _files(made, name, name))


def _open(source: str) -> ObjectStore:
    return open_store(source.rstrip("/")) if "://" in source else LocalStore(Path(source).expanduser())


def _mirrored(store: ObjectStore, name: str) -> BenchmarkFiles:
    """All whole mirrors of the benchmark: whichever revision is asked, its images are among these."""
    prefix = revisions_of_benchmark(name)
    _, revisions = store.children(prefix)
    whole = [revision for revision in revisions if store.stat(f"{revision}/{MANIFEST}") is not None]
    found = [_files(store, mirrored_files(revision), prefix).entries for revision in whole]
    return BenchmarkFiles(store=store, folder=prefix, entries=tuple(entry for entries in found for entry in entries))


def _files(store: ObjectStore, below: str, folder: str) -> BenchmarkFiles:
    kept = (*IMAGE_SUFFIXES, PARQUET_SUFFIX)
    entries = tuple(entry for entry in store.list(below) if entry.key.lower().endswith(kept))
    return BenchmarkFiles(store=store, folder=folder, entries=entries)


def _read(name: str, files: BenchmarkFiles) -> Iterator[BenchmarkImage]:
    store = files.store
    pictures = [entry for entry in files.entries if not entry.key.lower().endswith(PARQUET_SUFFIX)]
    for start in range(0, len(pictures), AT_ONCE):
        part = pictures[start : start + AT_ONCE]
        for entry, data in zip(part, concurrently(lambda entry: store.get(entry.key), part), strict=True):
            yield BenchmarkImage(benchmark=name, path=entry.key.removeprefix(f"{files.folder}/"), data=data)
    for entry in files.entries:
        if entry.key.lower().endswith(PARQUET_SUFFIX):
            for place, data in _images_of_table(store, entry.key):
                path = f"{entry.key.removeprefix(f'{files.folder}/')}#{place}"
                yield BenchmarkImage(benchmark=name, path=path, data=data)


def _images_of_table(store: ObjectStore, key: str) -> Iterator[tuple[str, bytes]]:
    """Every binary value of a Parquet file, with `<row>/<column>`; text columns are not even read."""
    with open_parquet(store, key) as table:
        columns = [field.name for field in table.schema if _holds_bytes(field.type)]
        rows = (row for groups in table.passes() for row in table.rows(groups, columns))
        for number, row in enumerate(rows):
            if isinstance(row, RefusedRow):
                raise InputError(
                    f"{store.uri(key)}, row {number}: {row.value}, more than {row.threshold}.",
                    remedy="Take the row out, or store its images as files.",
                )
            yield from ((f"{number}/{place}", data) for place, data in _bytes_in(row, ""))


def _holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type is binary, or a list or struct with binary in it."""
    import pyarrow.types as kinds

    if kinds.is_list(kind) or kinds.is_large_list(kind):
        return _holds_bytes(kind.value_type)
    if kinds.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _bytes_in(value: Any, place: str) -> Iterator[tuple[str, bytes]]:
    """The binary values within a cell, each with the names and numbers that lead to it."""
    if isinstance(value, bytes):
        yield place, value
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from _bytes_in(item, f"{place}/{name}" if place else str(name))
