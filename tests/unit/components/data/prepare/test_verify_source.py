"""A dataset is compared with its source, row by row."""

from typing import Any

import pytest

from components.data.prepare.verify_source import MOST, check_origin
from components.data.step import prepare
from mantis.artifacts.layout import RECIPE, run_key
from mantis.artifacts.manifest import Manifest
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from tests.fixtures.data import MakeJpeg, RawFolder, RunOn


@pytest.fixture
def rows(raw_folder: RawFolder) -> list[dict[str, Any]]:
    """Three rows that pass, the last of which shows two images, and one that is rejected."""
    for name in ("a", "b", "c"):
        raw_folder.image(f"{name}.jpg")
    shown = {"first": ["a.jpg"], "rejected": ["nowhere.jpg"], "second": [], "third": ["b.jpg", "c.jpg"]}
    return [raw_folder.row(name, *images) for name, images in shown.items()]


@pytest.fixture
def prepared(raw_folder: RawFolder, rows: list[dict[str, Any]], run_on: RunOn) -> tuple[ObjectStore, Manifest]:
    return prepared_by(run_on(raw_folder.write(rows)))


def prepared_by(run: Run) -> tuple[ObjectStore, Manifest]:
    """Store the run's recipe, which names the source, and prepare its subset."""
    run.store.put(run_key(run.id, RECIPE), run.recipe.to_yaml().encode())
    return run.store, prepare(run, "raw")


def test_an_unchanged_source_has_no_differences(prepared: tuple[ObjectStore, Manifest]) -> None:
    assert check_origin(*prepared) == ([], "")


def test_each_change_of_a_row_is_named(
    prepared: tuple[ObjectStore, Manifest], raw_folder: RawFolder, rows: list[dict[str, Any]], make_jpeg: MakeJpeg
) -> None:
    raw_folder.image("a.jpg", make_jpeg(size=(48, 30)))  # another picture under the same name
    raw_folder.image("nowhere.jpg")
    rows[2]["conversation"][1]["content"] = "Another answer."
    rows[2]["id"] = "renamed"
    rows[3] = raw_folder.row("third", "b.jpg")
    raw_folder.write(rows)
    place = f"{raw_folder.folder.as_uri()}/train.json, row"
    assert check_origin(*prepared) == (
        [
            f"{place} 0: the image a.jpg has changed: its SHA-256 differs from the recorded one",
            f"{place} 1: was rejected when the dataset was prepared, and passes now",
            f"{place} 2: the text of its conversation has changed, or the turns that are learned",
            f"{place} 2: its id was 'second', and is now 'renamed'",
            f"{place} 3: the text of its conversation has changed, or the turns that are learned",
            f"{place} 3: it had 2 images, and has now 1",
        ],
        "",
    )


def test_rows_that_fail_or_are_gone_are_named(
    prepared: tuple[ObjectStore, Manifest], raw_folder: RawFolder, rows: list[dict[str, Any]]
) -> None:
    rows[0]["images"] = ["gone.jpg"]
    raw_folder.write(rows[:3])
    file = f"{raw_folder.folder.as_uri()}/train.json"
    assert check_origin(*prepared)[0] == [
        f"{file}, row 0: was kept when the dataset was prepared, and is rejected now: image-missing gone.jpg",
        f"{file} ends before row 3, which {prepared[1].key} was made from",
    ]


def test_many_differences_are_counted(raw_folder: RawFolder, run_on: RunOn) -> None:
    rows = [raw_folder.row(f"row {number}") for number in range(MOST + 3)]
    store, dataset = prepared_by(run_on(raw_folder.write(rows)))
    for row in rows:
        row["conversation"][1]["content"] += " More."
    raw_folder.write(rows)
    lines, why = check_origin(store, dataset)
    assert (len(lines), why) == (MOST + 1, "")
    assert lines[-1] == "3 more rows of raw differ from the source"
