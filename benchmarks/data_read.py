"""Read random batches of a mixture as training does, from datasets in a local MinIO."""

import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.minio import serving
from benchmarks.real import repeat
from benchmarks.rows import Row

logger = logging.getLogger(__name__)

GOAL = ">=300"
BATCH = 128
ROUNDS = {False: 10, True: 40}
SUBSETS = {False: (400, 400), True: (2500, 2500)}  # conversations of each subset
RECIPE = """
name: benchmark
model: {{from_scratch: {{vocabulary: 8000}}}}
data: {{source: "{source}", context_length: 100000}}
"""


def random_read(full: bool) -> Row:
    """Measure samples per second, images included; the peer reads each image as one object, on as many threads."""
    import numpy as np

    from mantis.store.base import concurrently

    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "minio") as url:
        reader, cached, store, objects = _prepare(Path(name), url, SUBSETS[full])
        generator = np.random.default_rng(0)
        found: dict[str, list[float]] = {"ours": [], "objects": [], "cache": []}
        sizes = []
        for round_ in range(ROUNDS[full] + 1):
            positions = generator.choice(len(reader), BATCH, replace=False).tolist()
            start = time.perf_counter()
            samples = reader.take(positions)
            middle = time.perf_counter()
            names = [key for position in positions for key in objects[reader.subsets[position], reader.ids[position]]]
            images = concurrently(store.get, names)
            end = time.perf_counter()
            cached.take(positions)
            again = time.perf_counter()
            kept = cached.take(positions)
            found["cache"].append(time.perf_counter() - again)
            if kept != samples or images != [image for sample in samples for image in sample.images]:
                raise RuntimeError("peer and ours read different images")
            if round_:  # the first round opens tables and connections
                found["ours"].append(middle - start)
                found["objects"].append(end - middle)
                sizes.append(sum(map(len, images)))
    rates = {name: BATCH / statistics.median(seconds) for name, seconds in found.items()}
    return Row(
        name="data.random_read",
        peer=None,
        ours=rates["ours"],
        ratio=rates["ours"],
        unit="samples/s",
        goal=GOAL,
        details={
            "limit": "the server, which shares the cores; a training of 16 GPUs asks for 50 samples/s",
            "an object per image": rates["objects"],
            "from the local cache": rates["cache"],
            "mb_per_second": statistics.median(sizes) / 1e6 / statistics.median(found["ours"]),
            "batch": BATCH,
            "samples": sum(SUBSETS[full]),
        },
    )


def _prepare(folder: Path, url: str, counts: tuple[int, ...]) -> tuple[Any, Any, Any, dict[tuple[str, str], list[str]]]:
    """Prepare a mixture of real conversations in the store.

    Returns:
        A reader without a cache, a reader with one, the store, and the keys of each sample's images as single objects.
    """
    import json

    from components.data.step import assemble, prepare
    from mantis.config.recipe import parse_recipe
    from mantis.dataset.mixture_reader import MixtureReader
    from mantis.runs.step_runner import Run
    from mantis.store.base import upload_tree
    from mantis.store.opening import open_store

    os.environ["MANTIS_CACHE"] = str(folder / "cache")
    raw = folder / "raw"
    names = [f"part-{number}" for number in range(len(counts))]
    objects: dict[tuple[str, str], list[str]] = {}
    for subset, count in zip(names, counts, strict=True):
        repeat(raw / subset, count)
        for row in json.loads((raw / subset / "train.json").read_text()):
            objects[subset, row["id"]] = [f"objects/{subset}/{image}" for image in row["images"]]
    store = open_store(url)
    logger.info("Uploading every image as an object of its own")
    upload_tree(store, "objects", raw)
    run = Run(id="benchmark", store=store, recipe=parse_recipe(RECIPE.format(source=raw), origin="benchmark"))
    mixture = assemble(run, [prepare(run, subset) for subset in names])
    return MixtureReader(store, mixture), MixtureReader(store, mixture, cache_gb=10), store, objects
