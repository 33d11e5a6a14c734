"""Compare a benchmark's own images, which lie outside of every artifact, with the hashes in artifacts."""

from pathlib import Path, PurePosixPath
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.benchmarks.benchmark_mirror import find_mirror
from mantis.artifacts.layout import benchmark_of, mirrored_files
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.source_names import GENERATED
from mantis.errors import MantisError, NotFoundError
from mantis.hashing import sha256_bytes
from mantis.runs.step_runner import open_run
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store


def check_shown_images(store: ObjectStore, evaluation: Manifest, prediction: dict[str, Any]) -> tuple[list[str], str]:
    """Return the images of a prediction that changed after the evaluation, and a reason if they cannot be compared."""
    name = benchmark_of(evaluation.key)
    try:
        settings = open_run(evaluation.made_by.run, store.url).recipe.evaluation
        benchmark = load_benchmark(name, own=settings.own_benchmarks)
        if benchmark.stored:
            there, below = store, mirrored_files(find_mirror(store, benchmark).key)
        elif benchmark.source:
            there, below = _opened(benchmark.source), ""
        elif settings.source == GENERATED:
            return [], "its images were generated, so they have no source"
        else:
            there, below = _opened(settings.source), name
        folder = PurePosixPath(below, benchmark.file).parent
        return [line for image in prediction["images"] for line in _changed(there, folder, image)], ""
    except MantisError as error:
        return [], f"its images cannot be compared: {error.problem}"


def _opened(source: str) -> ObjectStore:
    return open_store(source.rstrip("/") if "://" in source else Path(source).expanduser().absolute().as_uri())


def _changed(store: ObjectStore, folder: PurePosixPath, image: dict[str, str]) -> list[str]:
    key = str(folder / image["path"])
    try:
        same = sha256_bytes(store.get(key)) == image["sha256"]
    except NotFoundError:
        return [f"{store.uri(key)}, which the model saw, is missing"]
    return [] if same else [f"{store.uri(key)}, which the model saw, was changed"]
