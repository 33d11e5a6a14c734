"""Opens the source of a benchmark's samples: the generator, a folder, a store, or a mirror in the run's store."""

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
from mantis.store.base import ObjectStore
from mantis.store.opening import local_copy, open_store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchmarkSource:
    """A source of samples. `identity` decides the samples. `read()` reads or generates them."""

    identity: dict[str, Any]
    read: Callable[[], Samples]


@contextmanager
def open_benchmark_source(
    recipe: Recipe, benchmark: Benchmark, store: ObjectStore, *, pictures: bool = True
) -> Iterator[BenchmarkSource]:
    """Open the source of `benchmark`. Its images can be read until the context ends; none if `pictures` is False.

    Your own benchmark has its files in `store` if it is `stored`, else in its own `source`. For every other one
    `evaluation.source` decides:
    - `generated`: the demo's generator;
    - `mirror`: the files that `mantis benchmark fetch` put into `store`;
    - a folder or store URL that holds a folder for each benchmark.

    Raises:
        InputError: as in `read_benchmark` and `find_mirror`.
    """
    named = recipe.evaluation.source
    with tempfile.TemporaryDirectory(prefix="mantis-benchmark-") as temporary:
        root = Path(temporary)
        if benchmark.stored:
            yield _mirrored(find_mirror(store, benchmark), store, benchmark, root, pictures)
        elif benchmark.source:
            yield _given(_folder(benchmark.source, "", root), benchmark, root, pictures)
        elif named == GENERATED:
            yield _generated(recipe, benchmark, root, pictures)
        elif named == MIRROR:
            yield _mirrored(find_mirror(store, benchmark), store, benchmark, root, pictures)
        else:
            yield _given(_folder(named, benchmark.name, root), benchmark, root, pictures)


def read_and_log(folder: Path, benchmark: Benchmark, *, spool: Path, pictures: bool = True) -> Samples:
    """Read a benchmark as `read_benchmark` does, and log the number of missing samples by reason."""
    spool.mkdir(parents=True, exist_ok=True)
    read = read_benchmark(folder, benchmark, spool=spool, pictures=pictures)
    for reason, number in sorted(Counter(missing.reason for missing in read.missing).items()):
        logger.warning("%s: %d samples are missing (%s). The result counts them.", benchmark.title, number, reason)
    return read


def _folder(source: str, name: str, temporary: Path) -> Path:
    if "://" in source:
        return local_copy(open_store(source), name, temporary)
    return Path(source).expanduser() / name


def _given(folder: Path, benchmark: Benchmark, temporary: Path, pictures: bool) -> BenchmarkSource:
    spool = temporary / "pictures"
    if not pictures:  # to score given answers: nothing is stored that an identity would tell apart
        return BenchmarkSource(identity={}, read=lambda: read_and_log(folder, benchmark, spool=spool, pictures=False))
    if benchmark.layout != "json":  # gigabytes: hashed now, but read only if a question has no response yet
        identity = {"content": files_identity(folder)}
        return BenchmarkSource(identity=identity, read=lambda: read_and_log(folder, benchmark, spool=spool))
    read = read_and_log(folder, benchmark, spool=spool)
    return BenchmarkSource(identity={"content": rows_identity(folder, benchmark, read.samples)}, read=lambda: read)


def _mirrored(
    manifest: Manifest, store: ObjectStore, benchmark: Benchmark, temporary: Path, pictures: bool
) -> BenchmarkSource:
    def read() -> Samples:
        folder = local_copy(store, mirrored_files(manifest.key), temporary)
        return read_and_log(folder, benchmark, spool=temporary / "pictures", pictures=pictures)

    return BenchmarkSource(identity={"mirror": manifest.fingerprint}, read=read)


def _generated(recipe: Recipe, benchmark: Benchmark, temporary: Path, pictures: bool) -> BenchmarkSource:
    from mantis import synthetic

    amount = recipe.evaluation.samples_per_skill

    def read() -> Samples:
        synthetic.write_demo_benchmark(temporary, benchmark.name, seed=recipe.seed, samples_per_skill=amount)
        return read_and_log(temporary / benchmark.name, benchmark, spool=temporary / "pictures", pictures=pictures)

    identity = {
        "generated": synthetic.REVISION,
        "recipe": recipe.identity("seed"),
        "evaluation": recipe.evaluation.identity("samples_per_skill"),
    }
    return BenchmarkSource(identity=identity, read=read)
