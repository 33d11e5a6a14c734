"""Samples of a benchmark, from a folder with its files; the one way in, whatever their layout."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.sample_images import Picture, file_picture, spooled_picture
from components.evaluation.benchmarks.samples import BenchmarkRow, RowError, make_prompt, parse_row
from components.evaluation.readers import json_list_reader, mementos_reader, mvbench_reader, parquet_reader
from components.evaluation.readers.raw import Raw
from components.evaluation.scoring.targets import CHOICES, Target
from mantis.errors import InputError
from mantis.hashing import fingerprint, sha256_file
from mantis.progress import Progress
from mantis.store.base import concurrently

AT_ONCE = 64  # rows whose pictures are hashed at the same time


@dataclass(frozen=True, kw_only=True)
class BenchmarkSample:
    """One question; `prompt` is the whole user turn, with one `<image>` mark for each picture, in order."""

    id: str
    skill: str
    unit: str
    question: str
    prompt: str
    pictures: tuple[Picture, ...]
    target: Target

    @property
    def options(self) -> tuple[str, ...]:
        """What can be chosen from."""
        return self.target.options

    @property
    def answer(self) -> str:
        """The right answer as a person reads it."""
        return self.target.shown()

    def valid_answers(self, benchmark: Benchmark) -> tuple[str, ...]:
        """What may be answered: the options' letters or texts; empty where anything may."""
        return tuple(self.target.letters) if self.target.kind in CHOICES else self.options


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A sample of the published benchmark that cannot be had here, and why, as a fixed word; `skill` empty: unknown."""

    id: str
    skill: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What there is of a benchmark, in the order of its files, and what is missing."""

    samples: list[BenchmarkSample]
    missing: list[Missing]


def read_benchmark(folder: Path, benchmark: Benchmark, *, spool: Path, pictures: bool = True) -> Samples:
    """All samples below `folder`; every image is hashed and its size is read.

    Images that lie inside other files are kept in the folder `spool`, which has to outlive the samples. Without
    `pictures` no sample has any: enough to score responses.

    Raises:
        InputError: a file is missing or not as it should be; in a home-made benchmark, also a row or an image.
    """
    made = _Made(folder=folder, benchmark=benchmark, spool=spool, pictures=pictures, samples=[], missing=[], seen=set())
    progress = Progress(label=f"Reading {benchmark.title}", total=None, unit="samples")
    for block in _blocks(_raw_rows(folder, benchmark, pictures=pictures)):
        made.add(block)
        progress.advance(len(block))
    if not made.samples:
        first = f" The first: {made.missing[0].reason}." if made.missing else ""
        raise InputError(
            f"{folder} holds no sample of {benchmark.name} that can be read.{first}",
            remedy=f"Fetch it: mantis benchmark fetch {benchmark.name}.",
        )
    return Samples(samples=made.samples, missing=made.missing)


def benchmark_files(folder: Path, benchmark: Benchmark) -> tuple[str, ...]:
    """The names of the benchmark's own files below `folder`, in their order.

    Raises:
        InputError: one of the patterns fits no file.
    """
    if benchmark.hub is None:
        return (benchmark.file,)
    found: list[str] = []
    for pattern in benchmark.hub.files:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())
        if not names:
            raise InputError(
                f"{folder} has no file {pattern} of {benchmark.name}.",
                remedy=f"Fetch it: mantis benchmark fetch {benchmark.name}.",
            )
        found += names
    return tuple(found)


def files_identity(folder: Path) -> str:
    """Hash of everything below the folder of a published benchmark."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = concurrently(sha256_file, files)
    return fingerprint({path.relative_to(folder).as_posix(): made for path, made in zip(files, hashes, strict=True)})


def rows_identity(folder: Path, benchmark: Benchmark, samples: list[BenchmarkSample]) -> str:
    """Hash of a home-made benchmark's file and of all its images."""
    shown = {picture.path: picture.sha256 for sample in samples for picture in sample.pictures}
    return fingerprint({"file": sha256_file(folder / benchmark.file), "pictures": shown})


def _raw_rows(folder: Path, benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    files = benchmark_files(folder, benchmark)
    if benchmark.layout == "mvbench":
        return mvbench_reader.raw_rows(folder, pictures=pictures)
    if benchmark.layout == "mementos":
        return mementos_reader.raw_rows(folder, files, benchmark, pictures=pictures)
    if benchmark.layout == "parquet":
        return parquet_reader.raw_rows(folder, files, benchmark, pictures=pictures)
    return json_list_reader.raw_rows(folder, files)


def _blocks(rows: Iterator[Raw]) -> Iterator[list[tuple[int, Raw]]]:
    block: list[tuple[int, Raw]] = []
    for numbered in enumerate(rows):
        block.append(numbered)
        if len(block) == AT_ONCE:
            yield block
            block = []
    if block:
        yield block


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Samples in the making."""

    folder: Path
    benchmark: Benchmark
    spool: Path
    pictures: bool
    samples: list[BenchmarkSample]
    missing: list[Missing]
    seen: set[str]

    def add(self, block: list[tuple[int, Raw]]) -> None:
        """Samples of these numbered rows, or why there are none."""
        for (_, raw), made in zip(block, concurrently(lambda numbered: self._make(*numbered), block), strict=True):
            if isinstance(made, BenchmarkSample) and made.id in self.seen:
                twice = RowError(
                    str(self.benchmark.fields.id), made.id, "is the id of an earlier row", "Make ids unique."
                )
                made = self._refuse(twice, raw, identity=made.id, skill=made.skill)
            if isinstance(made, Missing):
                self.missing.append(made)
            else:
                self.seen.add(made.id)
                self.samples.append(made)

    def _make(self, number: int, raw: Raw) -> BenchmarkSample | Missing:
        try:
            row = parse_row(raw.row, number, self.benchmark)
        except RowError as error:
            return self._refuse(error, raw, identity=str(raw.row.get(str(self.benchmark.fields.id), number)), skill="")
        if raw.missing:
            return Missing(id=row.id, skill=row.skill, reason=raw.missing)
        try:
            prompt, places = make_prompt(row, self.benchmark) if self.pictures else (row.question, [])
            shown = tuple(self._picture(row, place) for place in places)
        except RowError as error:
            return self._refuse(error, raw, identity=row.id, skill=row.skill)
        except OSError as error:
            if self.benchmark.hub is not None:
                return Missing(id=row.id, skill=row.skill, reason="image-unreadable")
            problem = f"{raw.origin}: {error.filename} cannot be read: {error.strerror}."
            raise InputError(problem, remedy="Restore it.") from None
        return BenchmarkSample(
            id=row.id,
            skill=row.skill,
            unit=row.unit,
            question=row.question,
            prompt=prompt,
            pictures=shown,
            target=row.target,
        )

    def _picture(self, row: BenchmarkRow, place: int) -> Picture:
        cell = row.images[place]
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return spooled_picture(cell, f"{row.id}/{place + 1}", self.spool)
        if isinstance(cell, str):
            return file_picture((self.folder / self.benchmark.file).parent / cell, cell)
        raise OSError(f"image {place + 1} of {row.id} is {type(cell).__name__}")

    def _refuse(self, error: RowError, raw: Raw, *, identity: str, skill: str) -> Missing:
        """A wrong row of a published benchmark is counted; in a home-made one it is an error to correct."""
        if self.benchmark.hub is not None:
            return Missing(id=identity, skill=skill, reason="row-wrong")
        text = repr(error.value)
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise InputError(f"{raw.origin}: {error.field} = {shown} {error.problem}.", remedy=error.remedy)
