"""Contamination check: find the benchmark images that are also in the training mixture.

Two images match in one of two ways:
- exact: their bytes are the same;
- similar: their perceptual hashes (perceptual_hash.py) differ in few bits.

A perceptual hash needs at least 64 pixels a side and some contrast. Smaller or plainer images match by bytes alone.
"""

import io
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mantis.artifacts.benchmark_images import BenchmarkImage, benchmark_images
from mantis.artifacts.manifest import Manifest, Number
from mantis.hashing import sha256_bytes
from mantis.images.perceptual_hash import (
    WORDS,
    Hashes,
    alike,
    grey_levels,
    hashes_from,
    perceptual_hashes,
)
from mantis.progress import Progress
from mantis.runs.step_runner import Run
from mantis.schema_versions import Form, versioned
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table

logger = logging.getLogger(__name__)

HITS = "hits.parquet"
BENCHMARKS = "benchmarks.json"
SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("image", pa.string()),
        ("match", pa.string()),  # exact | similar
        ("distance", pa.int32()),  # bits of 256 in which the hashes differ
        ("subset", pa.string()),
        ("row", pa.int64()),  # of the source, as in ledgers
        ("id", pa.string()),
        ("path", pa.string()),
    ]
)
NAMES = ["row", "id", "paths", "sha256", "phashes"]
ROWS_AT_ONCE = 8192  # of a dataset, without their images


@dataclass(frozen=True, kw_only=True)
class Match:
    """How a training image resembles a benchmark image. `digest` is the benchmark image's SHA-256."""

    digest: str
    kind: str
    distance: int


@dataclass(kw_only=True)
class Wanted:
    """The benchmarks' images, each once.

    `places` maps an image's digest to every benchmark and path that shows it. `hashes` [N, 4] holds the perceptual
    hashes; `hashed[i]` is the digest of row i. `unreadable` holds the digests of images that cannot be decoded.
    """

    places: dict[str, list[tuple[str, str]]]
    hashed: list[str]
    hashes: Hashes
    unreadable: set[str]

    def matches(self, digests: Sequence[str], hashes: Hashes) -> dict[str, list[Match]]:
        """Similar benchmark images of each training image. Row i of `hashes` [N, 4] belongs to `digests[i]`.

        An image with the same bytes is left out, since it is an exact match.
        """
        found: dict[str, list[Match]] = defaultdict(list)
        for ours, theirs, distance in zip(*(part.tolist() for part in alike(hashes, self.hashes)), strict=True):
            digest, other = digests[ours], self.hashed[theirs]
            if digest != other:
                found[digest].append(Match(digest=other, kind="similar", distance=distance))
        return found


def check_contamination(
    run: Run, mixture: Manifest, datasets: Mapping[str, Manifest], prefix: str
) -> dict[str, Number]:
    """Write hits.parquet and benchmarks.json below `prefix`. Returns the counts for the manifest.

    hits.parquet has a row for each pair of a benchmark image and a training image that match. benchmarks.json counts
    them by benchmark. The search compares every image of the mixture once. Preparation has stored their hashes, so no
    training image is read.
    """
    with ThreadPoolExecutor(run.recipe.data.workers) as pool:
        wanted = read_benchmarks(benchmark_images(run.recipe, run.store), pool)
        search = _ImageSearch(wanted)
        index = open_table(run.store, f"{mixture.key}/index.lance")
        chosen = index.to_table(columns=["subset", "row"])
        for subset, dataset in datasets.items():
            rows = np.unique(chosen.filter(pc.equal(chosen["subset"], subset))["row"].to_numpy())
            table = open_table(run.store, f"{dataset.key}/data.lance")
            search.subset(subset, table, rows)
    return _save(run, prefix, wanted, search.hits)


def read_benchmarks(images: Iterable[BenchmarkImage], pool: ThreadPoolExecutor) -> Wanted:
    """Digest and hash the benchmarks' images."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    unreadable: set[str] = set()
    hashed: list[str] = []
    parts: list[Hashes] = [np.empty((0, WORDS), np.uint64)]
    for batch in _batched(images, 256):
        fresh: list[BenchmarkImage] = []
        for image in batch:
            digest = sha256_bytes(image.data)
            if digest not in places:
                fresh.append(image)
            places[digest].append((image.benchmark, image.path))
        digests = [sha256_bytes(image.data) for image in fresh]
        levels = list(pool.map(_levels_or_error, [image.data for image in fresh]))
        unreadable |= {digest for digest, level in zip(digests, levels, strict=True) if isinstance(level, Exception)}
        told, hashes = _hash(digests, [None if isinstance(level, Exception) else level for level in levels])
        hashed += told
        parts.append(hashes)
    return Wanted(places=places, hashed=hashed, hashes=np.concatenate(parts), unreadable=unreadable)


class _ImageSearch:
    """One pass over the hashes of the training images. An image that several rows show is compared once."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._met: dict[str, list[Match]] = {}
        self.hits: list[dict[str, Any]] = []

    def subset(self, name: str, table: Any, rows: NDArray[np.int64]) -> None:
        """Compare the images of these rows of a dataset."""
        progress = Progress(label=f"compare {name} with benchmarks", total=len(rows), unit="rows")
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = table.take(rows[start : start + ROWS_AT_ONCE].tolist(), columns=NAMES).to_pylist()
            self._look(part)
            for row in part:
                for path, digest in zip(row["paths"], row["sha256"], strict=True):
                    self._note(name, row, path, digest)
            progress.advance(len(part))

    def _look(self, rows: list[dict[str, Any]]) -> None:
        fresh = {
            digest: phash
            for row in rows
            for digest, phash in zip(row["sha256"], row["phashes"], strict=True)
            if phash and digest not in self._met
        }
        matches = self._wanted.matches(list(fresh), hashes_from(list(fresh.values())))
        self._met |= {digest: matches.get(digest, []) for digest in fresh}

    def _note(self, subset: str, row: dict[str, Any], path: str, digest: str) -> None:
        matches = list(self._met.get(digest, []))
        if digest in self._wanted.places:
            matches.append(Match(digest=digest, kind="exact", distance=0))
        for match in matches:
            for benchmark, image in self._wanted.places[match.digest]:
                where = {"subset": subset, "row": row["row"], "id": row["id"], "path": path}
                about = {"benchmark": benchmark, "image": image, "match": match.kind, "distance": match.distance}
                self.hits.append(about | where)


def _levels_or_error(data: bytes) -> NDArray[np.float64] | Exception | None:
    try:
        return grey_levels(data)
    except (OSError, ValueError) as error:  # this step only counts it; evaluation reports the reason
        return error


def _hash(digests: list[str], levels: Sequence[NDArray[np.float64] | None]) -> tuple[list[str], Hashes]:
    """Hash the images that have grey levels. Returns their digests and their hashes [N, 4]."""
    told = [(digest, level) for digest, level in zip(digests, levels, strict=True) if level is not None]
    return [digest for digest, _ in told], perceptual_hashes([level for _, level in told])


def _batched(images: Iterable[BenchmarkImage], size: int) -> Iterator[list[BenchmarkImage]]:
    batch: list[BenchmarkImage] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(kw_only=True)
class _Count:
    """Counts of one benchmark: images, images with a perceptual hash, and images found in the mixture."""

    benchmark: str
    images: int = 0
    hashed: int = 0
    unreadable: int = 0
    exact: set[str] = field(default_factory=set)
    similar: set[str] = field(default_factory=set)
    samples: set[tuple[str, int]] = field(default_factory=set)

    @property
    def seen(self) -> int:
        return len(self.exact | self.similar)

    def row(self) -> dict[str, Any]:
        """A row of benchmarks.json. An image with both kinds of match counts as exact."""
        return {
            "benchmark": self.benchmark,
            "images": self.images,
            "hashed": self.hashed,
            "unreadable": self.unreadable,
            "exact": len(self.exact),
            "similar": len(self.similar - self.exact),
            "samples": len(self.samples),
        }


def _save(run: Run, prefix: str, wanted: Wanted, hits: list[dict[str, Any]]) -> dict[str, Number]:
    counts = {name: _Count(benchmark=name) for name in run.recipe.evaluation.benchmarks}
    hashed = set(wanted.hashed)
    for digest, places in wanted.places.items():
        for benchmark, _ in places:
            counts[benchmark].images += 1
            counts[benchmark].hashed += digest in hashed
        counts[places[0][0]].unreadable += digest in wanted.unreadable
    for hit in hits:
        count = counts[hit["benchmark"]]
        (count.exact if hit["match"] == "exact" else count.similar).add(hit["image"])
        count.samples.add((hit["subset"], hit["row"]))
    rows = [count.row() for count in counts.values()]
    _write(run.store, prefix, hits, rows)
    images, seen = sum(count.images for count in counts.values()), sum(count.seen for count in counts.values())
    logger.info("The training mixture has %s of %s benchmark images", f"{seen:,}", f"{images:,}")
    return {
        "images": images,
        "seen": seen,
        "hits": len(hits),
        **{f"seen/{name}": count.seen for name, count in counts.items()},
    }


def _write(store: ObjectStore, prefix: str, hits: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(hits, schema=SCHEMA), buffer)
    store.put(f"{prefix}/{HITS}", buffer.getvalue())
    counted = versioned(Form.CONTAMINATION, {"benchmarks": rows})
    store.put(f"{prefix}/{BENCHMARKS}", json.dumps(counted, indent=1).encode())
