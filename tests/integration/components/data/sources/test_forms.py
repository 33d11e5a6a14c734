"""The same real rows in every form give the same dataset, from a disk and from MinIO."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.form_writers import (
    FILE_FORMS,
    ROW_WRITERS,
    Images,
    Row,
    Write,
    json_list,
    write_images,
    zip_images,
)
from components.data.sources.files.form_table import SOURCE_FORMS
from components.data.sources.find import find_sources
from components.data.sources.rows.row_reader import ROW_FORMS
from components.data.step import prepare
from mantis.store.base import ObjectStore, upload_tree
from mantis.store.opening import open_store
from tests.fixtures.data import RowsOf, RunOn

COMPARED = ("row", "id", "roles", "contents", "images", "sha256", "widths", "heights")
ROWS = 12


@pytest.fixture(scope="module")
def real(test_data: Path) -> tuple[list[Row], Images]:
    """Real conversations of several turns, with line breaks, and their images by path."""
    folder = test_data / "mantis-chat"
    rows = [
        {key: row[key] for key in ("id", "images", "conversation")}
        for row in json.loads((folder / "train.json").read_text())[:ROWS]
    ]
    return rows, {path: (folder / path).read_bytes() for row in rows for path in row["images"]}


def dataset(run_on: RunOn, data_of: RowsOf, folder: Path | str, **options: Any) -> list[dict[str, Any]]:
    run = run_on(folder, **options)
    (name,) = find_sources(run.recipe.data.source)
    kept = data_of(run, prepare(run, name))
    return [{key: row[key] for key in COMPARED} for row in kept]


@pytest.fixture
def expected(real: tuple[list[Row], Images], tmp_path: Path, run_on: RunOn, data_of: RowsOf) -> list[dict[str, Any]]:
    json_list(tmp_path / "expected", *real)
    return dataset(run_on, data_of, tmp_path / "expected")


def test_every_form_is_written_by_a_test() -> None:
    assert set(FILE_FORMS.values()) == {form.name for form in SOURCE_FORMS}
    assert set(ROW_WRITERS.values()) == {form.name for form in ROW_FORMS}


@pytest.mark.parametrize("write", FILE_FORMS, ids=lambda write: write.__name__)
def test_files_of_every_form_give_the_same_dataset(
    write: Write,
    real: tuple[list[Row], Images],
    expected: list[dict[str, Any]],
    tmp_path: Path,
    run_on: RunOn,
    data_of: RowsOf,
    minio_store: ObjectStore,
) -> None:
    write(tmp_path / "raw", *real)
    (source,) = find_sources(str(tmp_path / "raw")).values()
    assert source.described().startswith(f"{FILE_FORMS[write]} with rows of the form ")
    assert source.extent().rows == ROWS
    assert dataset(run_on, data_of, tmp_path / "raw") == expected
    upload_tree(minio_store, write.__name__, tmp_path / "raw")
    away = open_store((tmp_path / "other").as_uri())
    assert dataset(run_on, data_of, minio_store.uri(write.__name__), store=away) == expected


@pytest.mark.parametrize("write", ROW_WRITERS, ids=lambda write: write.__name__)
def test_rows_of_every_form_give_the_same_dataset(
    write: Callable[[Row, Images], Row],
    real: tuple[list[Row], Images],
    expected: list[dict[str, Any]],
    tmp_path: Path,
    run_on: RunOn,
    data_of: RowsOf,
) -> None:
    rows, images = real
    write_images(tmp_path / "raw", images)
    (tmp_path / "raw/train.jsonl").write_text("\n".join(json.dumps(write(row, images)) for row in rows))
    (source,) = find_sources(str(tmp_path / "raw")).values()
    assert source.described() == f"json-lines with rows of the form {ROW_WRITERS[write]}"
    assert dataset(run_on, data_of, tmp_path / "raw") == expected


@pytest.mark.parametrize("write", FILE_FORMS, ids=lambda write: write.__name__)
def test_images_of_any_form_may_lie_in_zips(
    write: Write,
    real: tuple[list[Row], Images],
    expected: list[dict[str, Any]],
    tmp_path: Path,
    run_on: RunOn,
    data_of: RowsOf,
) -> None:
    rows, images = real
    write(tmp_path / "raw", rows, images)
    zip_images(tmp_path / "raw", images)
    assert dataset(run_on, data_of, tmp_path / "raw") == expected


@pytest.mark.parametrize("write", FILE_FORMS, ids=lambda write: write.__name__)
def test_a_killed_preparation_of_any_form_continues(
    write: Write, real: tuple[list[Row], Images], tmp_path: Path
) -> None:
    write(tmp_path / "raw", *real)
    (source,) = find_sources(str(tmp_path / "raw")).values()
    whole = list(source.rows.read(lambda _: True))
    later = list(source.rows.read(lambda number: number >= ROWS - 2))
    assert later[-2:] == whole[-2:]
    assert [source.reader.id_of(row) for row in later] == ids(real[0])


def ids(rows: Sequence[Row]) -> list[str]:
    return [row["id"] for row in rows]


def test_columns_and_a_format_override_what_is_found(
    real: tuple[list[Row], Images], expected: list[dict[str, Any]], tmp_path: Path, run_on: RunOn, data_of: RowsOf
) -> None:
    rows, images = real
    write_images(tmp_path / "raw", images)
    named = [
        {"key": row["id"], "pictures": row["images"], "dialogue": row["conversation"], "query": f"{number}?"}
        for number, row in enumerate(rows)
    ]
    (tmp_path / "raw/rows.ndjson").write_text("\n".join(map(json.dumps, named)))
    changes = {
        "data.format": "json-lines/conversation",
        "data.columns": "{id: key, images: pictures, conversation: dialogue}",
        "data.ignore": "[query]",
    }
    assert dataset(run_on, data_of, tmp_path / "raw", overrides=changes) == expected
    changes = {"data.format": "query", "data.columns": "{response: key}", "data.ignore": "[pictures, dialogue]"}
    found = dataset(run_on, data_of, tmp_path / "raw", overrides=changes)
    assert [row["contents"] for row in found] == [[f"{number}?", row["id"]] for number, row in enumerate(rows)]
