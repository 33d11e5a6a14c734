"""Reads the samples of a benchmark from a folder with its files, for every layout."""

import errno
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.benchmarks.guesses import valid_answers
from components.evaluation.benchmarks.prompts import make_prompt
from components.evaluation.benchmarks.samples import BenchmarkRow, RowError, parse_row
from components.evaluation.readers import (
    json_list_reader,
    mementos_reader,
    mvbench_reader,
    parquet_reader,
    tsv_reader,
    video_reader,
)
from components.evaluation.readers.raw import Raw
from components.evaluation.scoring.targets import Target
from mantis.errors import InputError
from mantis.generation.sample_images import Picture, file_picture, spooled_picture
from mantis.hashing import fingerprint, sha256_file
from mantis.progress import Progress
from mantis.store.base import concurrently

AT_ONCE = 64  # rows whose images are hashed at the same time
BYTES_AT_ONCE = 128 << 20  # of the images of these rows, where the rows hold them


@dataclass(frozen=True, kw_only=True)
class BenchmarkSample:
    """One question. `prompt` is the whole user turn, with one `<image>` mark for each image, in order.

    `cluster` names the clip, or is empty. `paths` are the image files that the row names, also if they are not read.
    """

    id: str
    skill: str
    unit: str
    cluster: str = ""
    paths: tuple[str, ...] = ()
    question: str
    prompt: str
    pictures: tuple[Picture, ...]
    target: Target

    @property
    def options(self) -> tuple[str, ...]:
        """The options of a choice; empty for other kinds of answers."""
        return self.target.options

    @property
    def answer(self) -> str:
        """The right answer as text for a report."""
        return self.target.shown()

    def valid_answers(self, benchmark: Benchmark) -> tuple[str, ...]:
        """The answers that may be given: options' letters or texts, or the skill's guesses. Empty means any text."""
        return valid_answers(self.target, self.question, benchmark.skills[self.skill])


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A published sample that cannot be read. `reason` is a fixed word; `skill` is empty if unknown."""

    id: str
    skill: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a benchmark, in the order of its files, and the missing ones."""

    samples: list[BenchmarkSample]
    missing: list[Missing]


def read_benchmark(folder: Path, benchmark: Benchmark, *, spool: Path, pictures: bool = True) -> Samples:
    """Read all samples below `folder`. Every image is hashed, and its size is read.

    Images inside of other files are written to the folder `spool`, which must exist as long as the samples are used. If
    `pictures` is False, samples have no images. That suffices to score responses.

    Raises:
        InputError: a file is missing or cannot be parsed. In a home-made benchmark, also a wrong row or image.
    """
    made = _Made(folder=folder, benchmark=benchmark, spool=spool, pictures=pictures, samples=[], missing=[], seen=set())
    progress = Progress(label=f"Reading {benchmark.title}", total=None, unit="samples")
    for block in _blocks(_raw_rows(folder, benchmark, pictures=pictures)):
        made.add(block)
        progress.advance(len(block))
    if not made.samples:
        first = f" The first one: {made.missing[0].reason}." if made.missing else ""
        raise InputError(
            f"{folder} holds no sample of {benchmark.name} that can be read.{first}",
            remedy=f"Run mantis benchmark fetch {benchmark.name}.",
        )
    return Samples(samples=made.samples, missing=made.missing)


def benchmark_files(folder: Path, benchmark: Benchmark) -> tuple[str, ...]:
    """List the benchmark's files below `folder`, in the order of the patterns.

    Raises:
        InputError: a pattern matches no file.
    """
    if benchmark.layout == "json":
        return benchmark.patterns
    found: list[str] = []
    for pattern in benchmark.patterns:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())
        if not names:
            raise InputError(
                f"{folder} has no file {pattern} of {benchmark.name}.",
                remedy=f"Run mantis benchmark fetch {benchmark.name}.",
            )
        found += names
    return tuple(found)


def files_identity(folder: Path) -> str:
    """Hash of every file below the folder of a published benchmark."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = concurrently(sha256_file, files)
    return fingerprint({path.relative_to(folder).as_posix(): made for path, made in zip(files, hashes, strict=True)})


def rows_identity(folder: Path, benchmark: Benchmark, samples: list[BenchmarkSample]) -> str:
    """Hash of a home-made benchmark's file and of all its images."""
    shown = {picture.path: picture.sha256 for sample in samples for picture in sample.pictures}
    return fingerprint({"file": sha256_file(folder / benchmark.file), "pictures": shown})


def _raw_rows(folder: Path, benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    rows = _rows_of_layout(folder, benchmark, pictures=pictures)
    only = benchmark.only
    if only is None:
        return rows
    return (raw for raw in rows if not raw.row or str(raw.row.get(only.column)) in only.values)


def _rows_of_layout(folder: Path, benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    files = benchmark_files(folder, benchmark)
    if benchmark.layout == "mvbench":
        return mvbench_reader.raw_rows(folder, pictures=pictures)
    if benchmark.layout == "mementos":
        return mementos_reader.raw_rows(folder, files, benchmark, pictures=pictures)
    if benchmark.layout == "parquet":
        return parquet_reader.raw_rows(folder, files, benchmark, pictures=pictures)
    if benchmark.layout == "tsv":
        return tsv_reader.raw_rows(folder, files, pictures=pictures)
    if benchmark.video is not None:
        return video_reader.raw_rows(folder, files, benchmark, benchmark.video, pictures=pictures)
    return json_list_reader.raw_rows(folder, files)


def _blocks(rows: Iterator[Raw]) -> Iterator[list[tuple[int, Raw]]]:
    block: list[tuple[int, Raw]] = []
    size = 0
    for number, raw in enumerate(rows):
        block.append((number, raw))
        size += _bytes_in(raw.row)
        if len(block) == AT_ONCE or size > BYTES_AT_ONCE:
            yield block
            block, size = [], 0
    if block:
        yield block


def _bytes_in(value: Any) -> int:
    """The bytes of all images within a row or a cell."""
    if isinstance(value, bytes):
        return len(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes_in, inner))


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Collects samples and missing samples while the rows are read."""

    folder: Path
    benchmark: Benchmark
    spool: Path
    pictures: bool
    samples: list[BenchmarkSample]
    missing: list[Missing]
    seen: set[str]

    def add(self, block: list[tuple[int, Raw]]) -> None:
        """Make a sample of each numbered row, or record why it is missing."""
        for (_, raw), made in zip(block, concurrently(lambda numbered: self._make(*numbered), block), strict=True):
            if isinstance(made, BenchmarkSample) and made.id in self.seen:
                twice = RowError(
                    str(self.benchmark.fields.id), made.id, "is the id of an earlier row", "Make the ids unique."
                )
                made = self._refuse(twice, raw, identity=made.id, skill=made.skill)
            if isinstance(made, Missing):
                self.missing.append(made)
            else:
                self.seen.add(made.id)
                self.samples.append(made)

    def _make(self, number: int, raw: Raw) -> BenchmarkSample | Missing:
        if raw.missing and not raw.row:
            return self._unread(raw, number)
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
            raise InputError(problem, remedy="Restore the image.") from None
        return BenchmarkSample(
            id=row.id,
            skill=row.skill,
            unit=row.unit,
            cluster=row.cluster,
            paths=tuple(cell for cell in row.images if isinstance(cell, str)),
            question=row.question,
            prompt=prompt,
            pictures=shown,
            target=row.target,
        )

    def _unread(self, raw: Raw, number: int) -> Missing:
        """Count a row whose content cannot be read as missing. In a home-made benchmark, raise an error."""
        if self.benchmark.hub is not None:
            return Missing(id=str(number), skill="", reason=raw.missing)
        raise InputError(f"{raw.origin} cannot be read: {raw.missing}.", remedy="Split the row, or shrink its images.")

    def _picture(self, row: BenchmarkRow, place: int) -> Picture:
        cell = row.images[place]
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return spooled_picture(cell, f"{row.id}/{place + 1}", self.spool)
        if isinstance(cell, str):
            return file_picture((self.folder / self.benchmark.file).parent / _inside(cell), cell)
        raise OSError(f"image {place + 1} of {row.id} is {type(cell).__name__}")

    def _refuse(self, error: RowError, raw: Raw, *, identity: str, skill: str) -> Missing:
        """Count a wrong row of a published benchmark as missing. In a home-made benchmark, raise an error."""
        if self.benchmark.hub is not None:
            return Missing(id=identity, skill=skill, reason="row-wrong")
        text = repr(error.value)
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise InputError(f"{raw.origin}: {error.field} = {shown} {error.problem}.", remedy=error.remedy)


def _inside(path: str) -> str:
    """The relative path of an image in a plain form.

    Raises:
        OSError: the path leads out of the benchmark's folder.
    """
    plain = posixpath.normpath(path)
    if "\0" in path or plain.startswith(("/", "../")) or plain == "..":
        raise OSError(errno.EINVAL, "the path leads out of the benchmark's folder", path)
    return plain
