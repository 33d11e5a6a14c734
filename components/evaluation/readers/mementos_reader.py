"""Reads Mementos: Parquet files with image sequences and descriptions, and keyword lists in keywords.json.

GPT-4 made the keyword lists. They are not published with the images. keywords.json holds them by subset (cmc, dl,
robo): {"cmc": {"synonyms": {keyword: [other words]}, "samples": {id: {"objects": [...], "behaviors": [...]}}}}.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.readers import parquet_reader
from components.evaluation.readers.raw import Raw
from components.evaluation.scoring.metrics.mementos import LISTS
from mantis.errors import InputError

KEYWORDS = "keywords.json"
SUBSETS = ("cmc", "dl", "robo")


def raw_rows(folder: Path, files: tuple[str, ...], benchmark: Benchmark, *, pictures: bool) -> Iterator[Raw]:
    """Yield every row with its `subset`, its keyword lists, and the lists of the whole subset.

    A row without keyword lists is missing (`keywords-missing`).

    Raises:
        InputError: keywords.json is missing or has another form; or as in `parquet_reader.raw_rows`.
    """
    keywords = _keywords(folder / KEYWORDS)
    for name in files:
        subset = next((subset for subset in SUBSETS if subset in Path(name).name), "")
        lists = keywords.get(subset, {"samples": {}, "synonyms": {}, "vocabulary": {}})
        for raw in parquet_reader.raw_rows(folder, (name,), benchmark.model_copy(update={"fields": _plain(benchmark)}),
                                    pictures=pictures):  # fmt: skip
            if not raw.row:
                yield raw
                continue
            own = lists["samples"].get(str(raw.row["id"]))
            added = {"subset": subset, "id": f"{subset}/{raw.row['id']}"}
            if own is None:
                yield Raw(origin=raw.origin, row={**raw.row, **added}, missing="keywords-missing")
                continue
            more = {"vocabulary": lists["vocabulary"], "synonyms": lists["synonyms"]}
            yield Raw(origin=raw.origin, row={**raw.row, **added, **own, **more})


def _plain(benchmark: Benchmark) -> Any:
    """The benchmark's fields that are columns of the Parquet files."""
    return benchmark.fields.model_copy(update={"skill": None, "details": {}})


def _keywords(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_bytes())
        return {subset: _lists(read[subset]) for subset in SUBSETS if subset in read}
    except FileNotFoundError:
        raise InputError(
            f"{file} is missing.",
            remedy="Write the file as docs/how-to/add-a-benchmark.md shows. Mementos' keyword lists are not published "
            "with its images.",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} cannot be read as keyword lists: {error!r}.",
            remedy="Correct the file. docs/how-to/add-a-benchmark.md shows its form.",
        ) from None


def _lists(given: dict[str, Any]) -> dict[str, Any]:
    samples = {str(key): {name: list(row[name]) for name in LISTS} for key, row in given["samples"].items()}
    vocabulary = {name: sorted({word for row in samples.values() for word in row[name]}) for name in LISTS}
    return {"samples": samples, "synonyms": given.get("synonyms", {}), "vocabulary": vocabulary}
