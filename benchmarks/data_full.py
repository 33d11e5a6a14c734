"""Take a table of Mantis-Instruct's shape from its source to the plan of its steps, at two sizes.

The rows, images and text lengths of each subset follow its published averages. The images are tiny, so the figures show
what the table itself costs. The peer is the smaller table: time per row must not grow.
"""

import io
import logging
import multiprocessing
import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real import unique
from benchmarks.rows import Row, meets
from components.data.published.published_sets import PublishedSubset, published
from pipelines.execution.resolve import resolve_run

logger = logging.getLogger(__name__)

SMALL = 20_000
LARGE = {False: 60_000, True: 720_548}  # rows
GOAL, MEMORY_GOAL, AGAIN_GOAL = "<=1.1", "<=2", "<=60"
WORKERS = 2
EDGE = 32  # pixels
GROUP_ROWS = 10_000
PICTURES = 500
CORPUS = 4 << 20  # characters that turns are cut from
CHARACTERS_PER_TOKEN = 4
ROLES = ("user", "assistant")
BATCH, TOKENS, PATCHES = 128, 9600, 65_536  # as in training.plan
RECIPE = """
name: full
model: {{family: llava-siglip, prompt: llama3, from_scratch: {{vocabulary: 8000}}}}
data: {{source: "{source}", workers: {workers}, context_length: 8192}}
"""


def full_table(full: bool) -> Row:
    """Measure seconds per row from source to plan at the large size, as a share of those at SMALL rows."""
    with tempfile.TemporaryDirectory() as name:
        found = {rows: _measure(Path(name) / str(rows), rows) for rows in (SMALL, LARGE[full])}
    small, large = found[SMALL], found[LARGE[full]]
    per_row = {rows: figures["seconds"] / rows for rows, figures in found.items()}
    return Row(
        name="data.full",
        peer=1000 * per_row[SMALL],
        ours=1000 * per_row[LARGE[full]],
        ratio=per_row[LARGE[full]] / per_row[SMALL],
        unit="ms per row",
        goal=GOAL,
        details={
            "peer": f"the same with {SMALL:,} rows",
            "limit": "one process that reads rows and hashes their content; then the tokenizer, on all cores",
            "rows": LARGE[full],
            "sizes": {f"{rows:,} rows": figures for rows, figures in found.items()},
            "growth_of_cpu_time": large["cpu_seconds"] / LARGE[full] / (small["cpu_seconds"] / SMALL),
            "peak_gb": large["peak_gb"],
            "peak_met": meets(large["peak_gb"], MEMORY_GOAL),
            "growth_of_memory": large["peak_gb"] / small["peak_gb"],
            "again_seconds": large["again_seconds"],
            "again_cpu_seconds": large["again_cpu_seconds"],
            "again_met": meets(large["again_seconds"], AGAIN_GOAL),
        },
    )


def _measure(folder: Path, rows: int) -> dict[str, Any]:
    """Write a table, take it to its plan, and do the same again, each in a process of its own."""
    logger.info("Writing a table of %s rows", f"{rows:,}")
    _in_a_process(_write, folder, rows)
    logger.info("Taking %s rows from source to plan", f"{rows:,}")
    first = _in_a_process(_prepare_and_plan, folder, rows)
    again = _in_a_process(_prepare_and_plan, folder, rows)
    return first | {f"again_{name}": again[name] for name in ("seconds", "cpu_seconds", "parts")}


def _prepare_and_plan(folder: Path, rows: int) -> dict[str, Any]:
    from components.data.step import assemble, prepare, resolve_subsets
    from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan
    from mantis.config.recipe import parse_recipe
    from mantis.runs.step_runner import Run
    from mantis.store.lance_tables import open_table
    from mantis.store.opening import open_store

    recipe = parse_recipe(RECIPE.format(source=folder / "source", workers=WORKERS), origin="benchmark")
    run = Run(id="benchmark", store=open_store((folder / "store").as_uri()), recipe=recipe)
    clock = _Clock()
    datasets = [prepare(run, subset) for subset in resolve_subsets(run)]
    clock.lap("prepare")
    mixture = assemble(run, datasets)
    clock.lap("assemble")
    index = open_table(run.store, f"{mixture.key}/index.lance").to_table(columns=["tokens", "patches"])
    plan = SamplePlan(
        Lengths(tokens=index["tokens"].to_numpy(), patches=index["patches"].to_numpy()),
        seed=0,
        batch_size=BATCH,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=TOKENS, patches=PATCHES),
        cost=CostModel(quadratic=0.0, patch=0.0),
    )
    for step in range(plan.steps):
        plan.step(step, world_size=WORKERS)
    clock.lap("plan")
    if sum(int(dataset.summary["rows"]) for dataset in datasets) != rows:
        raise RuntimeError("a subset has lost rows")
    return {
        "seconds": sum(clock.parts.values()),
        "parts": clock.parts,
        "cpu_seconds": sum(os.times()[:4]),  # of this process and its workers, which a busy machine changes little
        "samples": len(index),
    }


class _Clock:
    def __init__(self) -> None:
        self._start, self.parts = time.perf_counter(), dict[str, float]()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = now - self._start
        self._start = now


def _write(folder: Path, rows: int) -> dict[str, Any]:
    """Write every subset of the mixture in the published layout, with its share of `rows`."""
    _, recipe = resolve_run("data-mantis-instruct", {}, "")
    subsets = {subset.name: published()[subset.name] for subset in recipe.data.subsets}
    whole = sum(subset.rows for subset in subsets.values())
    ends = np.cumsum([subset.rows for subset in subsets.values()]) * rows // whole
    shares = np.diff(ends, prepend=0).tolist()
    writer = _Writer(np.random.default_rng(0))
    for (name, subset), share in zip(subsets.items(), shares, strict=True):
        if share:
            writer.write(folder / "source" / name, subset, share)
    return {"seconds": 0.0, "images": writer.images}


@dataclass
class _Writer:
    """Writes subsets. No two images have the same bytes, and no two rows the same text."""

    generator: np.random.Generator
    images: int = 0

    def __post_init__(self) -> None:
        words = [
            "".join(self.generator.choice(list("aeioulnrst"), length)) for length in range(2, 9) for _ in range(500)
        ]
        self._corpus = " ".join(self.generator.choice(words, CORPUS // 6))
        self._pictures = [self._picture() for _ in range(PICTURES)]

    def write(self, folder: Path, subset: PublishedSubset, rows: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir(parents=True)
        kinds = {"images": [("bytes", pa.binary()), ("path", pa.string())]}
        kinds["conversation"] = [("role", pa.string()), ("content", pa.string())]
        schema = pa.schema([("id", pa.string()), *((name, pa.list_(pa.struct(kind))) for name, kind in kinds.items())])
        with (
            zipfile.ZipFile(folder / "train_images.zip", "w") as archive,
            pq.ParquetWriter(folder / "train-00000.parquet", schema) as table,
        ):
            made = self._rows(archive, subset, rows)
            for start in range(0, rows, GROUP_ROWS):
                part = [next(made) for _ in range(min(GROUP_ROWS, rows - start))]
                table.write_table(pa.Table.from_pylist(part, schema=schema))

    def _rows(self, archive: zipfile.ZipFile, subset: PublishedSubset, rows: int) -> Iterator[dict[str, Any]]:
        images = np.clip(self.generator.poisson(subset.images.mean, rows), 1, subset.images.max).tolist()
        turns = 2 * np.maximum(1, self.generator.poisson(subset.messages / 2, rows))
        tokens = (subset.text_tokens or 30) * self.generator.lognormal(-0.18, 0.6, rows)
        lengths = np.maximum(8, tokens * CHARACTERS_PER_TOKEN / turns).astype(int).tolist()
        for row in range(rows):
            names = []
            for _ in range(images[row]):
                self.images += 1
                names.append(f"{self.images}.jpg")
                archive.writestr(names[-1], unique(self._pictures[self.images % PICTURES], self.images))
            starts = self.generator.integers(0, len(self._corpus) - lengths[row], turns[row]).tolist()
            said = [self._corpus[start : start + lengths[row]].strip() for start in starts]
            said[0] = "<image>" * len(names) + f"{row} {said[0]}"
            yield {
                "id": str(row),
                "images": [{"bytes": None, "path": name} for name in names],
                "conversation": [{"role": ROLES[turn % 2], "content": text} for turn, text in enumerate(said)],
            }

    def _picture(self) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        levels = self.generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(levels).resize((EDGE, EDGE)).save(buffer, "JPEG")
        return buffer.getvalue()


def _in_a_process(work: Any, folder: Path, rows: int) -> dict[str, Any]:
    """Run `work` in a process of its own. The result has the largest memory of that process and its children."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(work, folder, rows, there))  # no daemon, since it starts workers
    process.start()
    there.close()
    stop, peak = threading.Event(), [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, stop, peak))
    watcher.start()
    try:
        figures: dict[str, Any] = here.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} failed; its error is above") from None
    finally:
        stop.set()
        watcher.join()
        process.join()
    return figures | {"peak_gb": peak[0] / 1e9}


def _serve(work: Any, folder: Path, rows: int, connection: Connection) -> None:
    connection.send(work(folder, rows))


def _watch(root: int, stop: threading.Event, peak: list[int]) -> None:
    while not stop.wait(0.5):
        peak[0] = max(peak[0], sum(map(_proportional_bytes, _tree(root))))


def _tree(root: int) -> list[int]:
    """The process `root` and all processes below it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit():
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry))
        except OSError:
            continue
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def _proportional_bytes(process: int) -> int:
    """Memory of a process, in which a page that n processes share counts for 1/n."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:  # it has ended
        pass
    return 0
