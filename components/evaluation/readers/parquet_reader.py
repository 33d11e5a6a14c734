"""Reads Parquet files with embedded images in the hub's form: {"bytes", "path"}, or lists of these."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Derived
from components.evaluation.readers.raw import Raw
from mantis.errors import InputError

ROWS_AT_ONCE = 16  # few, since memory holds their images of several MB each


def raw_rows(folder: Path, files: tuple[str, ...], benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    """Yield every row of the files, in order, with the columns that the benchmark names.

    Raises:
        InputError: a file is not Parquet, or lacks a column.
    """
    for name in files:
        for number, row in enumerate(_rows(folder / name, benchmark, pictures=pictures)):
            yield Raw(origin=f"{folder / name}, row {number}", row=row)


def columns(benchmark: Benchmark, *, pictures: bool) -> list[str]:
    """The columns that a benchmark reads, its prompt included."""
    fields = benchmark.fields
    named: list[str | tuple[str, ...] | Derived | None] = [
        fields.id, fields.skill, fields.question, fields.hint, fields.options, fields.answer, fields.answers,
        fields.kind, fields.unit, *fields.details.values(), benchmark.resolved.prompt.columns,
        fields.images if pictures else None, None if benchmark.only is None else benchmark.only.column,
    ]  # fmt: skip
    found: dict[str, None] = {}
    for item in named:
        names = (item.column,) if isinstance(item, Derived) else (item,) if isinstance(item, str) else item or ()
        found |= dict.fromkeys(names)
    return list(found)


def _rows(path: Path, benchmark: Benchmark, *, pictures: bool) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = columns(benchmark, pictures=pictures)
    try:
        file = pq.ParquetFile(path)
        lacking = [name for name in wanted if name not in file.schema_arrow.names]
        if lacking:
            raise InputError(
                f"{path} has no column {', '.join(lacking)}; it has {', '.join(file.schema_arrow.names)}.",
                remedy=f"Fetch the revision that benchmarks/{benchmark.name}.yaml pins, or correct its `fields`.",
            )
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{path} cannot be read as Parquet: {reason}.", remedy="Fetch the file again.") from None
