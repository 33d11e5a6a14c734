"""What the model will see of rows of a prepared set."""

from typing import Any

import pytest

from components.data.showing.dataset_view import show_dataset
from components.data.showing.selection import Selection
from components.data.showing.source_view import show_source
from components.data.sources.find import open_source
from components.data.step import prepare
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError
from mantis.runs.step_runner import Run
from tests.fixtures.data import RawFolder, RunOn


def prepared(raw_folder: RawFolder, run_on: RunOn) -> tuple[Run, Manifest]:
    raw_folder.image("a.jpg")
    rows: list[dict[str, Any]] = [raw_folder.row(f"r{number}", "a.jpg") for number in range(8)]
    rows[2]["images"] = ["away.jpg"]
    rows[5]["conversation"] = rows[5]["conversation"] + [{"role": "user", "content": "And now?"}]
    run = run_on(raw_folder.write(rows))
    return run, prepare(run, "raw")


def test_a_prepared_set_shows_the_same_as_its_source(raw_folder: RawFolder, run_on: RunOn) -> None:
    run, dataset = prepared(raw_folder, run_on)
    chosen = Selection(rows=(0, 5, 7))
    stored = show_dataset(run.store, run.recipe, dataset, chosen)
    source = show_source(run.store, run.recipe, open_source(str(raw_folder.folder), "raw"), chosen)
    assert stored.rows == source.rows
    assert [plot for plot in stored.plots if "reason" not in plot.title] == [
        plot for plot in source.plots if "reason" not in plot.title
    ]
    assert [finding.reason for finding in stored.rows[1].findings] == ["last-turn-skipped"]


def test_a_refused_row_of_a_prepared_set_shows_its_entry_of_the_ledger(raw_folder: RawFolder, run_on: RunOn) -> None:
    run, dataset = prepared(raw_folder, run_on)
    [row] = show_dataset(run.store, run.recipe, dataset, Selection(rows=(2,))).rows
    assert (row.row, row.id, row.dropped, row.tokens) == (2, "r2", True, None)
    [finding] = row.findings
    assert (finding.reason, finding.value) == ("image-missing", "away.jpg")
    assert finding.remedy


def test_few_rows_are_read_and_shown(raw_folder: RawFolder, run_on: RunOn) -> None:
    run, dataset = prepared(raw_folder, run_on)
    data = show_dataset(run.store, run.recipe, dataset, Selection(read=3, shown=2))
    assert [row.row for row in data.rows] == [0, 1]
    assert data.facts["rows with tokens counted"] == 3
    assert sum(bar.count for bar in data.plots[0].bars) == 3
    assert {each.reason: each.rows for each in data.reasons}["image-missing"] == 1


def test_a_row_that_never_was_there_is_refused(raw_folder: RawFolder, run_on: RunOn) -> None:
    run, dataset = prepared(raw_folder, run_on)
    with pytest.raises(ConfigError, match="--row 8: the set has no such row") as caught:
        show_dataset(run.store, run.recipe, dataset, Selection(rows=(8,)))
    assert "8 rows" in caught.value.remedy
