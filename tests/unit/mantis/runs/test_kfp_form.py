"""Where a remedy's change belongs on the form of KFP's page."""

import pytest

from mantis.config.recipe import Recipe
from mantis.runs.kfp_form import FORM_FIELDS, place_on_form


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("training.nodes = 2. Set training.nodes = 1.", "nodes for training.nodes"),
        (
            "Use training.nodes or training.seed.",
            "nodes for training.nodes and overrides (FIELD=VALUE) for training.seed",
        ),
        ("Set data.skills and data.source.", "overrides (FIELD=VALUE) for data.skills, data.source"),
        ("Add --set FIELD=VALUE.", "overrides (FIELD=VALUE) for --set"),
        ("Choose another --name.", "mantis_run for --name"),
        ("Write --store s3://bucket.", "store_url for --store"),
    ],
)
def test_a_change_has_its_place(text: str, places: str) -> None:
    assert place_on_form(text) == f" On KFP's page, clone the run, and fill in {places}."


@pytest.mark.parametrize(
    "text", ["Rank 1 died. Run it again.", "See docs/how-to/bring-your-data.md, model.key, data.py."]
)
def test_what_names_no_field_has_no_place(text: str) -> None:
    assert place_on_form(text) == ""


def test_the_form_has_fields_of_the_recipe() -> None:
    for name in FORM_FIELDS.values():
        section, field = name.split(".")
        assert field in getattr(Recipe(name="a"), section).model_dump()
