from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mantis.config.data_settings import SubsetSettings
from mantis.config.identity import Settings, birth_default, is_runtime_only
from mantis.config.recipe import Recipe
from mantis.config.training_settings import AdapterSettings, TrainingSettings
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from pipelines.execution.resolve import resolve_run
from tests.golden.fingerprints import fingerprints_of, put_inputs
from tests.golden.sections import sections, with_unused_field
from tests.helpers.recipe_strategies import fields_of, recipes, value_of, with_value

SECTIONS = sections()


def content(value: Any) -> Any:
    """A section without what is runtime only, whole: what an identity has to tell apart."""
    if isinstance(value, Settings):
        fields = type(value).model_fields.items()
        return {name: content(getattr(value, name)) for name, field in fields if not is_runtime_only(field)}
    return [content(item) for item in value] if isinstance(value, tuple) else value


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_another_value_of_any_field_is_another_identity_unless_the_field_is_runtime_only(data: Any) -> None:
    recipe = data.draw(recipes())
    path, field = data.draw(st.sampled_from(fields_of(recipe)))
    try:
        other = with_value(recipe, path, data.draw(value_of(field)))
    except ValidationError:
        assume(False)
    assume(other != recipe)
    same = content(other) == content(recipe)
    assert (other.identity() == recipe.identity()) == same
    assert (other.default_run_id() == recipe.default_run_id()) == same


@pytest.mark.parametrize("place", SECTIONS)
def test_a_birth_default_that_is_written_out_changes_nothing(place: Any) -> None:
    required = {"": {"name": "x"}, "data.subsets": {"name": "x"}}.get(place, {})
    section = SECTIONS[place]
    for name, field in section.model_fields.items():
        if field.is_required() or is_runtime_only(field):
            continue
        default = TypeAdapter(field.annotation).validate_python(birth_default(field))
        assert section(**{**required, name: default}).identity() == section(**required).identity()


def test_a_section_that_may_be_absent_is_not_the_same_with_its_defaults() -> None:
    absent, present = TrainingSettings(), TrainingSettings(adapter=AdapterSettings())
    assert absent.identity() == {}
    assert present.identity() == {"training.adapter": {}}


def test_items_of_a_list_keep_their_place_and_number() -> None:
    def recipe(*subsets: SubsetSettings) -> Recipe:
        return Recipe.model_validate({"name": "x", "data": {"subsets": subsets}})

    a, b, capped = SubsetSettings(name="a"), SubsetSettings(name="b"), SubsetSettings(name="a", cap=5)
    several = [recipe(), recipe(a), recipe(b), recipe(capped), recipe(a, b), recipe(b, a), recipe(capped, b)]
    assert len({one.default_run_id() for one in several}) == len(several)


@pytest.mark.parametrize("place", SECTIONS)
def test_every_section_knows_its_place(place: Any) -> None:
    assert SECTIONS[place].section == place


def test_a_section_at_another_place_than_its_class_says_is_refused() -> None:
    class Twice(Settings):
        section = "one"

    class Holder(Settings):
        other: Twice = Twice()

    with pytest.raises(TypeError, match="'one' and stands at 'other'"):
        Holder().identity()


def test_a_default_section_that_sets_fields_is_refused() -> None:
    class Inner(Settings):
        section = "inner"
        rate: float = 1.0

    class Holder(Settings):
        inner: Inner = Inner(rate=2.0)

    with pytest.raises(TypeError, match="sets fields"):
        Holder().identity()


def test_an_identity_of_unknown_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="no learning_rat"):
        TrainingSettings().identity("learning_rat")


@pytest.mark.parametrize("name", ["demo", "ablation-siglip"])
@pytest.mark.parametrize("place", SECTIONS)
def test_a_new_field_changes_no_run_id_and_no_address(place: Any, name: str, local_store: LocalStore) -> None:
    run_id, recipe = resolve_run(name, {}, "")
    wider = with_unused_field(SECTIONS[place]).model_validate(recipe.model_dump())
    assert "'unused': 7" in str(wider.model_dump()) or not holds(recipe, place)
    assert isinstance(wider, Recipe)
    assert wider.default_run_id() == run_id
    put_inputs(local_store, recipe)
    before, after = (fingerprints_of(Run(id=run_id, store=local_store, recipe=one)) for one in (recipe, wider))
    assert after == before


def holds(recipe: Recipe, place: str) -> bool:
    """Whether the recipe has a section at `place`: a list may be empty, and an optional section absent."""
    value = recipe
    for part in filter(None, place.split(".")):
        value = getattr(value, part)
    return bool(value)
