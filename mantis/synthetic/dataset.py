"""Write the generated tasks as JSON and JPEGs, with several processes."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from mantis.errors import ConfigError
from mantis.processes import die_with_parent
from mantis.progress import track
from mantis.synthetic import tasks
from mantis.synthetic.drawing import Pen

REVISION = 2  # increase it when the same arguments give other rows
SUBSETS = tuple(tasks.SUBSETS)
BENCHMARKS = tuple(tasks.BENCHMARKS)
SKILLS = {
    subset: subset.removeprefix("demo-") for subset in SUBSETS
}  # skill of each subset, for an ablation of the demo
ROWS_AT_ONCE = 200
IMAGE_MARK = "<image>"


def write_demo_data(
    folder: Path, *, seed: int, conversations: int, samples_per_skill: int, workers: int | None = None
) -> None:
    """Write both subsets and both benchmarks of the demo, with the images beside the JSON.

    The files are `<folder>/<subset>/train.json` and `<folder>/benchmarks/<benchmark>/test.json`.

    Args:
        folder: the folder to write to.
        seed: the seed of all random numbers.
        conversations: the number of training rows of both subsets together.
        samples_per_skill: the number of benchmark rows of each skill.
        workers: the number of processes; None is one per core.
    """
    for subset in SUBSETS:
        write_demo_subset(folder, subset, seed=seed, conversations=conversations, workers=workers)
    for benchmark in BENCHMARKS:
        write_demo_benchmark(
            folder / "benchmarks", benchmark, seed=seed, samples_per_skill=samples_per_skill, workers=workers
        )


def write_demo_subset(folder: Path, subset: str, *, seed: int, conversations: int, workers: int | None = None) -> None:
    """Write `<folder>/<subset>/train.json` with this subset's share of all `conversations`, and its images.

    Raises:
        ConfigError: the subset is not one of SUBSETS.
    """
    _require(subset, SUBSETS, "subset")
    job = _Job(folder=folder / subset, name=subset, seed=seed)
    _write(job.folder / "train.json", _training_rows, job, shares(conversations)[subset], workers)


def write_demo_benchmark(
    folder: Path, benchmark: str, *, seed: int, samples_per_skill: int, workers: int | None = None
) -> None:
    """Write `<folder>/<benchmark>/test.json` with `samples_per_skill` rows of each of its skills, and its images.

    Raises:
        ConfigError: the benchmark does not exist.
    """
    _require(benchmark, BENCHMARKS, "benchmark")
    job = _Job(folder=folder / benchmark, name=benchmark, seed=seed)
    rows = samples_per_skill * len(tasks.BENCHMARKS[benchmark])
    _write(job.folder / "test.json", _held_out_rows, job, rows, workers)


def shares(conversations: int) -> dict[str, int]:
    """Divide `conversations` among the subsets, in proportion to the weights of their tasks."""
    weights = {subset: sum(kinds.values()) for subset, kinds in tasks.SUBSETS.items()}
    total = sum(weights.values())
    ends = [round(conversations * end / total) for end in accumulate(weights.values())]
    return {subset: end - start for subset, start, end in zip(weights, [0, *ends], ends, strict=False)}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Everything that a worker process needs to generate any row."""

    folder: Path
    name: str
    seed: int

    def pen(self, stream: str, row: int) -> Pen:
        """Create the pen of a row, with random numbers of its own, so that any process may generate the row."""
        return Pen(random=Random(f"{self.seed}/{stream}/{self.name}/{row}"), held_out=stream == "held-out")

    def save(self, row: int, images: list[bytes]) -> list[str]:
        """Write a row's images, and return their paths relative to the folder."""
        paths = [f"images/{row // 1000:03d}/{row:06d}-{number}.jpg" for number in range(1, len(images) + 1)]
        for path, image in zip(paths, images, strict=True):
            (self.folder / path).write_bytes(image)
        return paths


Rows = Callable[[_Job, range], list[dict[str, Any]]]


def _write(path: Path, make: Rows, job: _Job, rows: int, workers: int | None) -> None:
    for thousand in range(0, rows, 1000):
        (job.folder / f"images/{thousand // 1000:03d}").mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) for row in _rows(make, job, rows, workers or len(os.sched_getaffinity(0))))
    with path.open("w") as file:
        file.write("[\n")
        for number, line in enumerate(track(lines, label=f"generate {job.name}", total=rows, unit="rows")):
            file.write(f"{',' if number else ''}{line}\n")
        file.write("]\n")


def _rows(make: Rows, job: _Job, rows: int, workers: int) -> Iterator[dict[str, Any]]:
    parts = [range(start, min(start + ROWS_AT_ONCE, rows)) for start in range(0, rows, ROWS_AT_ONCE)]
    if workers == 1:  # without a fork, because this process may have threads
        for part in parts:
            yield from make(job, part)
        return
    with ProcessPoolExecutor(workers, get_context("fork"), initializer=die_with_parent) as pool:
        for made in pool.map(make, repeat(job), parts):
            yield from made


def _training_rows(job: _Job, rows: range) -> list[dict[str, Any]]:
    return [_training_row(job, row) for row in rows]


def _training_row(job: _Job, row: int) -> dict[str, Any]:
    kinds = tasks.SUBSETS[job.name]
    pen = job.pen("training", row)
    (kind,) = pen.random.choices(list(kinds), list(kinds.values()))
    example = kind(pen)
    paths = job.save(row, example.images)
    turns: list[dict[str, str]] = []
    for number, exchange in enumerate(example.exchanges):
        marks = IMAGE_MARK * len(paths) if number == 0 else ""
        turns.append({"role": "user", "content": marks + exchange.question})
        turns.append({"role": "assistant", "content": exchange.answer})
    return {"id": f"{job.name}-{row:06d}", "images": paths, "conversation": turns}


def _held_out_rows(job: _Job, rows: range) -> list[dict[str, Any]]:
    return [_held_out_row(job, row) for row in rows]


def _held_out_row(job: _Job, row: int) -> dict[str, Any]:
    kinds = tasks.BENCHMARKS[job.name]
    skill = list(kinds)[row % len(kinds)]
    number = row // len(kinds)
    example = kinds[skill](job.pen("held-out", row), number)
    paths = job.save(row, example.images)
    (exchange,) = example.exchanges
    return {
        "id": f"{skill}-{number:04d}",
        "skill": skill,
        "question": IMAGE_MARK * len(paths) + exchange.question,
        "images": paths,
        "options": list(exchange.options),
        "answer": exchange.answer,
    }


def _require(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        raise ConfigError(f"{what} = {name!r} is not generated.", remedy=f"Generated: {', '.join(known)}.")
