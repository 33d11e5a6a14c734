"""Compare a benchmark's own images, which lie outside of every artifact, with the hashes in artifacts."""

from pathlib import Path, PurePosixPath
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from mantis.artifacts.layout import benchmark_of
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
        source = open_run(evaluation.made_by.run, store.url).recipe.evaluation.source
        if source == GENERATED:
            return [], "its images were generated, so they have no source"
        folder = PurePosixPath(name, load_benchmark(name).file).parent
        there = open_store(source.rstrip("/") if "://" in source else Path(source).expanduser().absolute().as_uri())
        return [line for image in prediction["images"] for line in _changed(there, folder, image)], ""
    except MantisError as error:
        return [], f"its images cannot be compared: {error.problem}"


def _changed(store: ObjectStore, folder: PurePosixPath, image: dict[str, str]) -> list[str]:
    key = str(folder / image["path"])
    try:
        same = sha256_bytes(store.get(key)) == image["sha256"]
    except NotFoundError:
        return [f"{store.uri(key)}, which the model saw, is missing"]
    return [] if same else [f"{store.uri(key)}, which the model saw, was changed"]
