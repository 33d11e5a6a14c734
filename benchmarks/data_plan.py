"""Plan the mixture of Mantis-Instruct, which selects the rows of an epoch. Lengths follow the published table.

The peer does the work of the official loader for the same epoch: a bisection and a look-up for each sample
(TIGER-AI-Lab/Mantis, mantis/train/data.py, DatasetCollection).
"""

import bisect
import itertools
import logging
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.rows import Row
from components.data.mixture.assemble import SCHEMA, visited
from components.data.mixture.epoch_estimate import SubsetSize, plan_epoch
from components.data.mixture.epochs import SourceRows, capped, epoch_of, samples_per_epoch
from components.data.published.published_sets import published
from mantis.config.recipe import Recipe
from mantis.dataset.mixture_reader import INDEX
from mantis.store.lance_tables import write_table
from mantis.store.local import LocalStore
from pipelines.execution.resolve import resolve_run

logger = logging.getLogger(__name__)

REPEATS = 5
GOAL = "<10"
IMAGE_TOKENS = 64
RECIPES = ("data-mantis-instruct", "data-mantis-instruct-balanced")

Lengths = dict[str, pa.Table]  # by subset: one index row for every row of the subset


def plan(full: bool) -> Row:
    """Measure seconds from lengths to a written index, and of the official way, for the slower of two mixtures."""
    results = {name: _measure(name) for name in (RECIPES if full else RECIPES[1:])}
    slowest = max(results.values(), key=lambda result: result["ours"])
    return Row(
        name="data.plan",
        peer=None,
        ours=slowest["ours"],
        ratio=slowest["ours"],
        unit="s",
        goal=GOAL,
        details={"mixtures": results, "limited_by": max(slowest["parts"], key=slowest["parts"].__getitem__)},
    )


def _measure(name: str) -> dict[str, Any]:
    _, recipe = resolve_run(name, {}, "")
    lengths = {subset.name: _draw(subset.name) for subset in recipe.data.subsets}
    ours: list[dict[str, float]] = []
    theirs: list[float] = []
    samples: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        for repeat in range(REPEATS + 1):
            logger.info("%s: %d of %d", name, repeat, REPEATS)
            seconds, rows = _ours(recipe, lengths, store)
            peer, peer_rows = _timed(lambda: _official(recipe, lengths))
            samples |= {rows, peer_rows}
            if repeat:
                ours.append(seconds)
                theirs.append(peer)
    if len(samples) != 1:
        raise RuntimeError(f"peer and ours plan different epochs: {samples} samples")
    whole = statistics.median(sum(parts.values()) for parts in ours)
    return {
        "samples": samples.pop(),
        "ours": whole,
        "parts": {part: statistics.median(seconds[part] for seconds in ours) for part in ours[0]},
        "official": statistics.median(theirs),
        "official_over_ours": statistics.median(theirs) / whole,
    }


def _ours(recipe: Recipe, lengths: Lengths, store: LocalStore) -> tuple[dict[str, float], int]:
    sizes = {name: len(table) for name, table in lengths.items()}
    printed, _ = _timed(
        lambda: plan_epoch(
            recipe,
            {name: SubsetSize(rows=rows, known="published") for name, rows in sizes.items()},
            image_tokens=IMAGE_TOKENS,
        )
    )
    sources = {name: SourceRows.all_of(rows) for name, rows in sizes.items()}
    chosen, epoch = _timed(lambda: epoch_of(sources, recipe.data, seed=recipe.seed))
    indexed, index = _timed(lambda: pa.concat_tables(visited(lengths[name], visits) for name, visits in epoch.items()))
    written, rows = _timed(lambda: write_table(store, INDEX, SCHEMA, index.to_batches()))
    return {"print": printed, "choose": chosen, "index": indexed, "write": written}, rows


def _official(recipe: Recipe, lengths: Lengths) -> int:
    """Visit the samples of an epoch one by one, each with its lengths, as Python objects."""
    data = recipe.data
    columns = {name: table["tokens"].to_pylist() for name, table in lengths.items()}
    sizes = {name: capped(len(values), data.subset(name)) for name, values in columns.items()}
    names = list(sizes)
    ends = [0, *itertools.accumulate(samples_per_epoch(sizes, data.sampling).values())]
    index = []
    for position in range(ends[-1]):
        which = bisect.bisect_right(ends, position) - 1
        row = (position - ends[which]) % sizes[names[which]]
        index.append((names[which], row, columns[names[which]][row]))
    return len(index)


def _draw(name: str) -> pa.Table:
    """Draw index rows of a published subset: images and text around its means, never above its largest row."""
    known = published()[name]
    generator = np.random.default_rng(known.rows)
    images = np.clip(generator.poisson(known.images.mean, known.rows), 1, known.images.max).astype(np.int32)
    text = generator.lognormal(math.log(known.text_tokens or 30) - 0.18, 0.6, known.rows).astype(np.int32) + 8
    columns: dict[str, Any] = {
        "subset": pa.repeat(pa.scalar(name), known.rows),
        "row": np.arange(known.rows),
        "id": [f"{name}-{row}" for row in range(known.rows)],
        "turns": np.full(known.rows, 2, np.int32),
        "tokens": text + IMAGE_TOKENS * images,
        "targets": text // 3 + 1,
        "images": images,
        "patches": IMAGE_TOKENS * images,
    }
    return pa.table(columns, schema=SCHEMA)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
