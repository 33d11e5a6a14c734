import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.recipe import Recipe, parse_recipe
from mantis.errors import ConfigError

MINIMAL = "name: test\n"


def test_an_unknown_field_is_named_with_its_value_and_the_fields_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"training\.learning_rat = 0\.1 is not a field") as caught:
        parse_recipe(MINIMAL + "training: {learning_rat: 0.1}", origin="r.yaml")
    assert "learning_rate" in caught.value.remedy


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"training\.global_batch_size = 0: .*greater than or equal to 1"):
        parse_recipe(MINIMAL, origin="r.yaml", overrides={"training.global_batch_size": "0"})


def test_overrides_are_yaml_and_numbers_in_scientific_notation_are_numbers() -> None:
    overrides = {"training.learning_rate": "5e-6", "data.subsets": "[{name: a}, {name: b}]", "seed": "3"}
    recipe = parse_recipe(MINIMAL, origin="r", overrides=overrides)
    assert recipe.training.learning_rate == 5e-6
    assert [subset.name for subset in recipe.data.subsets] == ["a", "b"]
    assert recipe.seed == 3


@pytest.mark.parametrize("text", ["- a list", "just text", "{unclosed", ""])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        parse_recipe(text, origin="r.yaml")


def test_an_override_below_a_single_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="single value"):
        parse_recipe(MINIMAL, origin="r", overrides={"name.x": "1"})


def test_a_subset_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        parse_recipe(MINIMAL + "data: {subsets: [{name: a}, {name: a}]}", origin="r")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resources", "{memory: 400 GB}"),
        ("resources", "{nvidia.com/gpu: many}"),
        ("queue", "A100_"),
        ("image", "a b; rm -rf /"),
        ("image", "https://example.org/x"),
        ("image", "mantis/train@sha256:0"),
    ],
)
def test_what_a_cluster_would_refuse_is_named(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.{field}"):
        parse_recipe(MINIMAL, origin="r", overrides={f"cluster.{field}": value})


def test_amounts_as_kubernetes_writes_them() -> None:
    amounts = "{nvidia.com/gpu: 4, memory: 400Gi, cpu: 500m, ephemeral-storage: '1.5'}"
    read = parse_recipe(MINIMAL, origin="r", overrides={"cluster.resources": amounts, "cluster.queue": "a100.night"})
    assert read.cluster.resources["nvidia.com/gpu"] == "4"
    assert read.cluster.queue == "a100.night"


@pytest.mark.parametrize("name", ["mantis/train:1", "host:5000/a/b-c_d", "a.io/b:1.0-gpu@sha256:" + "0" * 64, "''"])
def test_references_of_images(name: str) -> None:
    read = parse_recipe(MINIMAL, origin="r", overrides={"cluster.image": name})
    assert read.cluster.image == name.strip("'")


def test_how_is_no_part_of_what() -> None:
    base = parse_recipe(MINIMAL, origin="r")
    other = parse_recipe(MINIMAL, origin="r", overrides={"training.gpus_per_node": "4", "data.workers": "8"})
    assert base.identity() == other.identity()
    assert base.default_run_id() == other.default_run_id()
    changed = parse_recipe(MINIMAL, origin="r", overrides={"training.learning_rate": "2e-5"})
    assert changed.default_run_id() != base.default_run_id()


@pytest.mark.parametrize("model", ["{}", "{base: scratch}", "{base: scratch, from_scratch: null}"])
def test_from_scratch_has_its_defaults_without_a_section(model: str) -> None:
    read = parse_recipe(f"{MINIMAL}model: {model}", origin="r")
    assert read.model.from_scratch == FromScratch()
    assert parse_recipe(read.to_yaml(), origin="again") == read
    assert "from_scratch" in read.to_yaml()
    changed = parse_recipe(f"{MINIMAL}model: {model}", origin="r", overrides={"model.prompt": "compact"})
    assert changed.model.from_scratch == FromScratch()


def test_a_shape_beside_weights_is_an_error_that_says_what_to_do() -> None:
    text = MINIMAL + "model: {base: scratch, from_scratch: {text_layers: 4}}"
    with pytest.raises(ConfigError, match=r"model\.from_scratch = {'text_layers': 4}: .*'/my/model'.*=null") as caught:
        parse_recipe(text, origin="r", overrides={"model.base": "/my/model"})
    assert "model.base=scratch" in caught.value.problem
    removed = {"model.base": "/my/model", "model.from_scratch": "null"}
    assert parse_recipe(text, origin="r", overrides=removed).model.from_scratch is None


def test_another_base_put_in_later_has_no_shape_from_scratch() -> None:
    """`model_copy` validates nothing; random weights must not stand for those that it names."""
    settings = ModelSettings().model_copy(update={"base": "/my/model"})
    assert settings.scratch_shape is None
    assert "from_scratch" not in settings.identity()
    assert "from_scratch" not in settings.model_dump()


def test_an_unknown_field_of_a_section_that_may_be_absent_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"model\.from_scratch\.layers = 2 is not a field") as caught:
        parse_recipe(MINIMAL, origin="r", overrides={"model.from_scratch.layers": "2"})
    assert "text_layers" in caught.value.remedy


def test_the_resolved_recipe_reads_back(demo_recipe: Recipe) -> None:
    assert parse_recipe(demo_recipe.to_yaml(), origin="again") == demo_recipe


@given(st.text(max_size=60))
def test_no_text_gives_anything_but_a_recipe_or_our_error(text: Any) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_recipe(text, origin="fuzz"), Recipe)
