"""Where a benchmark's samples come from: generated here, a folder, a store, or a mirror in the run's store."""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.benchmark_mirror import find_mirror
from components.evaluation.readers.benchmark_reader import Samples, files_identity, read_benchmark, rows_identity
from mantis.artifacts.layout import mirrored_files
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.source_names import GENERATED, MIRROR
from mantis.config.recipe import Recipe
from mantis.store.base import ObjectStore, download_tree
from mantis.store.local import LocalStore
from mantis.store.opening import open_store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchmarkSource:
    """`identity` decides the samples; they are read, or generated, only when `read` is called."""

    identity: dict[str, Any]
    read: Callable[[], Samples]


@contextmanager
def open_benchmark_source(recipe: Recipe, benchmark: Benchmark, store: ObjectStore) -> Iterator[BenchmarkSource]:
    """The source of `benchmark`; its pictures can be read until it is closed.

    `evaluation.source` is `generated`, `mirror` (what `mantis benchmark fetch` put into `store`), or a folder or store
    URL with a folder for each benchmark.

    Raises:
        InputError: see `read_benchmark`, and `find_mirror`.
    """
    named = recipe.evaluation.source
    with tempfile.TemporaryDirectory(prefix="mantis-benchmark-") as temporary:
        root = Path(temporary)
        if named == GENERATED:
            yield _generated(recipe, benchmark, root)
        elif named == MIRROR:
            yield _mirrored(find_mirror(store, benchmark), store, benchmark, root)
        else:
            yield _given(_folder(named, benchmark.name, root), benchmark, root)


def local_copy(store: ObjectStore, prefix: str, temporary: Path) -> Path:
    """A folder with the objects under `prefix`: the store's own where it is one, else a copy below `temporary`."""
    if isinstance(store, LocalStore):
        return store.root / prefix
    download_tree(store, prefix, temporary / prefix)
    return temporary / prefix


def read_and_log(folder: Path, benchmark: Benchmark, *, spool: Path, pictures: bool = True) -> Samples:
    """As `read_benchmark`. Log the number of missing samples by reason."""
    spool.mkdir(parents=True, exist_ok=True)
    read = read_benchmark(folder, benchmark, spool=spool, pictures=pictures)
    for reason, number in sorted(Counter(missing.reason for missing in read.missing).items()):
        logger.warning("%s: %d samples are missing (%s). The result counts them.", benchmark.title, number, reason)
    return read


def _folder(source: str, name: str, temporary: Path) -> Path:
    if "://" in source:
        return local_copy(open_store(source), name, temporary)
    return Path(source).expanduser() / name


def _given(folder: Path, benchmark: Benchmark, temporary: Path) -> BenchmarkSource:
    spool = temporary / "pictures"
    if benchmark.hub is not None:  # gigabytes: hashed now, read only if there is something to answer
        identity = {"content": files_identity(folder)}
        return BenchmarkSource(identity=identity, read=lambda: read_and_log(folder, benchmark, spool=spool))
    read = read_and_log(folder, benchmark, spool=spool)
    return BenchmarkSource(identity={"content": rows_identity(folder, benchmark, read.samples)}, read=lambda: read)


def _mirrored(manifest: Manifest, store: ObjectStore, benchmark: Benchmark, temporary: Path) -> BenchmarkSource:
    def read() -> Samples:
        folder = local_copy(store, mirrored_files(manifest.key), temporary)
        return read_and_log(folder, benchmark, spool=temporary / "pictures")

    return BenchmarkSource(identity={"mirror": manifest.fingerprint}, read=read)


def _generated(recipe: Recipe, benchmark: Benchmark, temporary: Path) -> BenchmarkSource:
    from mantis import synthetic

    amount = recipe.evaluation.samples_per_skill

    def read() -> Samples:
        synthetic.write_demo_benchmark(temporary, benchmark.name, seed=recipe.seed, samples_per_skill=amount)
        return read_and_log(temporary / benchmark.name, benchmark, spool=temporary / "pictures")

    identity = {
        "generated": synthetic.REVISION,
        "recipe": recipe.identity("seed"),
        "evaluation": recipe.evaluation.identity("samples_per_skill"),
    }
    return BenchmarkSource(identity=identity, read=read)
