"""Prepare a subset, with each of its stages alone as peer, and memory at two sizes."""

import logging
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.real import repeat
from benchmarks.rows import Row, meets

logger = logging.getLogger(__name__)

SIZES = {False: (500, 4000), True: (2000, 20_000)}  # conversations; the smaller size is for the comparison of memory
REPEATS = 3
GOAL, MEMORY_GOAL, GROWTH_GOAL = ">=0.7", "<=1.5", "<=1.25"
WORKERS = 2
LIMITS = {"max_pixels": 64_000_000}
MAX_BYTES = 32_000_000

Figures = dict[str, float]


def prepare_subset(full: bool) -> Row:
    """Measure conversations per second of the step, as a share of its slowest stage: reading, checking or writing."""
    small, large = SIZES[full]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = repeat(folder / "large", large)
        repeat(folder / "small", small)
        found: dict[str, list[Figures]] = {"step": [], "read": [], "check": [], "write": []}
        for round_ in range(REPEATS):
            for stage, figures in found.items():
                logger.info("Round %d of %d: %s", round_ + 1, REPEATS, stage)
                figures.append(_in_a_process(STAGES[stage], folder / "large"))
        little = _in_a_process(STAGES["step"], folder / "small")
    rates = {stage: large / statistics.median(one["seconds"] for one in figures) for stage, figures in found.items()}
    slowest = min((stage for stage in rates if stage != "step"), key=lambda stage: rates[stage])
    memory = max(one["peak_gb"] for one in found["step"])
    return Row(
        name="data.prepare",
        peer=rates[slowest],
        ours=rates["step"],
        ratio=rates["step"] / rates[slowest],
        unit="conversations/s",
        goal=GOAL,
        details={
            "peer": f"the slowest stage alone: {slowest}",
            "limit": "decoding every JPEG once to check it, on all cores",
            "conversations": large,
            "image_mb": size / 1e6,
            "rates": rates,
            "cpu_seconds": {
                stage: statistics.median(one["cpu_seconds"] for one in figures) for stage, figures in found.items()
            },
            "peak_gb": memory,
            "peak_met": meets(memory, MEMORY_GOAL),
            f"peak_gb of {small}": little["peak_gb"],
            "growth": memory / little["peak_gb"],
            "growth_met": meets(memory / little["peak_gb"], GROWTH_GOAL),
        },
    )


def _step(folder: Path, scratch: Path) -> None:
    """Run the step itself, without hashing the source for its address."""
    from components.data.prepare.prepare_subset import prepare_subset as step
    from components.data.prepare.row_validator import limits_of
    from components.data.sources.find import open_source
    from mantis.config.data_settings import DataSettings
    from mantis.store.opening import open_store

    data = DataSettings(max_image_pixels=LIMITS["max_pixels"], max_image_bytes=MAX_BYTES)
    source = open_source(str(folder), folder.name)
    step(
        open_store(scratch.as_uri()),
        "benchmark",
        folder.name,
        source,
        limits=limits_of(data, folder.name),
        workers=WORKERS,
    )


def _read(folder: Path, scratch: Path) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(Path.read_bytes, _images(folder)):
            pass


def _check(folder: Path, scratch: Path) -> None:
    """Check rows, including the reading, because gigabytes of image bytes cannot be held in memory."""
    from components.data.prepare.image_checks import check_image

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(lambda path: check_image(path.name, path.read_bytes(), **LIMITS), _images(folder)):
            pass


def _write(folder: Path, scratch: Path) -> None:
    import pyarrow as pa

    from mantis.store.lance_tables import write_table
    from mantis.store.opening import open_store

    schema = pa.schema([("image", pa.large_binary())])

    def batches() -> Iterator[pa.RecordBatch]:
        paths = _images(folder)
        for start in range(0, len(paths), 512):
            data = [path.read_bytes() for path in paths[start : start + 512]]
            yield pa.RecordBatch.from_arrays([pa.array(data, type=pa.large_binary())], schema=schema)

    write_table(open_store(scratch.as_uri()), "benchmark", schema, batches())


def _images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


Stage = Callable[[Path, Path], None]
STAGES: dict[str, Stage] = {"step": _step, "read": _read, "check": _check, "write": _write}


def _in_a_process(stage: Stage, folder: Path) -> Figures:
    """Run a stage in a process of its own, so that peak memory is that of the stage."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure, args=(stage, folder, there), daemon=True)
    process.start()
    there.close()
    try:
        figures: Figures = here.recv()
    except EOFError:
        raise RuntimeError(f"{stage.__name__} failed; its error is above") from None
    process.join()
    return figures


def _measure(stage: Stage, folder: Path, connection: Connection) -> None:
    import lance  # noqa: F401 - import time that belongs to no stage

    import components.data.prepare.prepare_subset  # noqa: F401

    for path in _images(folder):  # load into the page cache, so that all stages start equal
        path.read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        start, cpu = time.perf_counter(), time.process_time()
        stage(folder, Path(scratch))
        figures: dict[str, Any] = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,  # kilobytes on Linux
        }
    connection.send(figures)
