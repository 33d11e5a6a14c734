"""The table of differences from the official system, and the rows that a report shows."""

import dataclasses
from typing import Any

import pytest

from components.reporting.collect.fidelity_rows import FidelityRow, differences_of, fidelity
from components.reporting.step import report
from mantis.config.recipe import Recipe
from pipelines.execution.resolve import resolve_run, shipped_recipes
from tests.fixtures.reporting import Stored

ROWS = [row for rows in fidelity().values() for row in rows]
REPRODUCTIONS = [name for name in shipped_recipes() if name != "demo" and not name.startswith(("data-", "tune-"))]
WHOLE_PATCHES = "Idefics2's last, partial patches"
SMALL_IMAGES = "images below 16 pixels"


def shipped(name: str, **changes: str) -> Recipe:
    return resolve_run(name, changes, "")[1]


def listed(recipe: Recipe) -> list[str]:
    return [row.what for row in differences_of(recipe)]


def given(values: Any) -> dict[str, str]:
    """The first allowed value of each field, as changes of a recipe."""
    return {name: str(allowed[0]).lower() for name, allowed in values.items() if name != "training.adapter.kind"}


def test_the_sections_are_those_of_the_page() -> None:
    assert list(fidelity()) == ["data", "models", "evaluation"]
    names = [row.what for row in ROWS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what[:40])
def test_conditions_name_fields_and_values_of_recipes(row: FidelityRow) -> None:
    """A condition with a wrong name would never hold, or would always hold."""
    for values in (row.where, row.unless):
        for name, allowed in values.items():
            for value in allowed:
                if name == "training.adapter.kind":
                    changes = {"training.adapter": f"{{kind: {value}}}"}
                else:
                    changes = {name: str(value).lower() if isinstance(value, bool) else str(value)}
                recipe = shipped("demo", **changes).model_dump(mode="json")
                found: Any = recipe
                for part in name.split("."):
                    found = found[part]
                assert found == value


@pytest.mark.parametrize("row", [row for row in ROWS if row.setting], ids=lambda row: row.what[:40])
def test_a_setting_removes_its_row(row: FidelityRow) -> None:
    name = {"llava-siglip": "mantis-siglip", "idefics2": "mantis-idefics2"}[
        str(row.where.get("model.family", ("idefics2",))[0])
    ]
    assert row.unless
    for field, value in given(row.unless).items():
        assert f"{field}: {value}" in row.setting
    other = {"model.image.feature_select": "full", "model.image.partial_patches": "false", "model.image.smallest": "1"}
    without = {field: other[field] for field in row.unless}
    assert row.what in listed(shipped(name, **without))
    assert row.what not in listed(shipped(name, **without | given(row.unless)))


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_shipped_recipes_have_the_official_settings(name: str) -> None:
    """No row that a setting removes applies to a recipe of the paper, and each recipe has rows."""
    rows = differences_of(shipped(name))
    assert rows
    assert [row.what for row in rows if row.setting] == []


def test_rows_follow_family_prompt_and_adapter() -> None:
    assert "Flamingo's base" in listed(shipped("mantis-flamingo"))
    assert "Flamingo's base" not in listed(shipped("mantis-clip"))
    assert "stage 1, more than one exchange" in listed(shipped("pretrain-clip"))
    assert "stage 1, more than one exchange" not in listed(shipped("mantis-clip"))
    assert "adapters in the vision tower" in listed(shipped("ablation-idefics2"))
    assert "adapters in the vision tower" not in listed(shipped("mantis-idefics2"))


@pytest.mark.parametrize("name", ["demo", "data-mantis-instruct"])
def test_a_recipe_that_reproduces_no_model_has_no_rows(name: str) -> None:
    assert differences_of(shipped(name)) == ()


def test_the_report_of_a_reproduction_lists_its_rows(stored: Stored) -> None:
    recipe = shipped("mantis-idefics2", **{"model.image.partial_patches": "false", "model.image.smallest": "1"})
    run = dataclasses.replace(stored.run, recipe=recipe)
    made = report(run, stored.evaluations)
    page, text = (run.store.get(f"{made.key}/{name}").decode() for name in ("report.html", "report.md"))
    assert {WHOLE_PATCHES, SMALL_IMAGES} <= set(listed(recipe))
    for shown in (page, text):
        assert "Differences from the official system" in shown
        for row in differences_of(recipe):
            assert row.why.split("`")[0].split("'")[0].split("_")[0] in shown.replace("\\", "")
    assert "model.image.partial_patches: true" in page
    plain = report(dataclasses.replace(stored.run, recipe=shipped("demo")), stored.evaluations)
    assert "Differences from the official system" not in run.store.get(f"{plain.key}/report.md").decode()
