"""Reads Parquet files with embedded images in the hub's form: {"bytes", "path"}, or lists of these."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Derived
from components.evaluation.readers.raw import Raw
from mantis.errors import InputError, NotFoundError
from mantis.store.local import LocalStore
from mantis.store.parquet_file import ParquetTable, RefusedRow, open_parquet

TOO_LARGE, NOT_UTF8 = "row-too-large", "text-not-utf8"  # reasons of missing samples


def raw_rows(folder: Path, files: tuple[str, ...], benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    """Yield every row of the files, in order, with the columns that the benchmark names.

    Memory holds a bounded part of a file, whatever it says. A row of more than a row's limit is missing
    (`row-too-large`), as is a row with text that is not UTF-8 (`text-not-utf8`).

    Raises:
        InputError: a file is not Parquet, lacks a column, or has a page that is too large.
    """
    for name in files:
        yield from _rows(folder / name, benchmark, pictures=pictures)


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


def _rows(path: Path, benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    wanted = columns(benchmark, pictures=pictures)
    try:
        with open_parquet(LocalStore(path.parent), path.name) as table:
            lacking = [name for name in wanted if name not in table.schema.names]
            if lacking:
                raise InputError(
                    f"{path} has no column {', '.join(lacking)}; it has {', '.join(table.schema.names)}.",
                    remedy=f"Fetch the revision that benchmarks/{benchmark.name}.yaml pins, or correct its `fields`.",
                )
            if benchmark.fields.cluster in table.schema.names:  # a copy of the dataset may lack it
                wanted = list(dict.fromkeys([*wanted, str(benchmark.fields.cluster)]))
            number = 0
            for group, count in enumerate(table.groups):
                rows = table.rows([group], wanted) if _has_rows(table, group, benchmark) else ()
                for place, row in enumerate(rows):
                    origin = f"{path}, row {number + place}"
                    if isinstance(row, RefusedRow):
                        yield Raw(origin=origin, row={}, missing=TOO_LARGE)
                    elif not _is_text(row):
                        yield Raw(origin=origin, row={}, missing=NOT_UTF8)
                    else:
                        yield Raw(origin=origin, row=row)
                number += count
    except NotFoundError:
        raise InputError(f"{path} is missing.", remedy="Fetch the file again.") from None


def _has_rows(table: ParquetTable, group: int, benchmark: Benchmark) -> bool:
    """Whether a row group has rows of the benchmark. Its images are not read for that."""
    only = benchmark.only
    if only is None:
        return True
    found = table.rows([group], [only.column])
    return any(not isinstance(row, RefusedRow) and str(row[only.column]) in only.values for row in found)


def _is_text(value: Any) -> bool:
    """Whether every text within a cell is UTF-8: without lone surrogates, which stand for other bytes."""
    if isinstance(value, str):
        return value.isascii() or value.encode(errors="replace").decode() == value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(_is_text(item) for item in inner)
