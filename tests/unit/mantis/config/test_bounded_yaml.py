"""Recipes that would fill the memory or end in a traceback."""

import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mantis.config.bounded_yaml import parse_yaml
from mantis.config.recipe import parse_recipe
from mantis.errors import ConfigError

LEVELS = "\n".join(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 9))
BOMB = f"name: bomb\nl0: &l0 [x, x, x, x, x, x, x, x, x]\n{LEVELS}\n"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=30,
)


@given(VALUES)
def test_usual_documents_are_parsed_as_pyyaml_parses_them(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value)) == value


def test_anchors_and_merged_keys_may_be_used() -> None:
    text = "base: &base {a: 1, b: [1, 2]}\nmore: {<<: *base, c: *base}\nlist: [*base, *base]\n"
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases stand for more than 100,000 values"),
        ("name: deep\ndata: " + "{a: " * 3000 + "1" + "}" * 3000, "nested more than 40 levels deep"),
        ("name: deep\ndata: " + "[" * 100_000, "nested more than 40 levels deep"),
        ("name: own\ndata: &a {b: *a}", "the branch that it is in"),
        ("name: long\ndescription: " + "x" * 2_000_000, "more than 1,048,576"),
    ],
    ids=["aliases", "mappings", "lists", "its own branch", "long"],
)
def test_a_recipe_that_is_a_bomb_gives_a_short_error(text: str, words: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=words) as caught:
        parse_recipe(text, origin="bomb.yaml")
    assert "bomb.yaml" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 2


@pytest.mark.parametrize("value", ["[" * 5000, "{a: " * 3000 + "1" + "}" * 3000, "x" * 2_000_000])
def test_an_override_that_is_a_bomb_gives_a_short_error(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe("name: plain", origin="plain.yaml", overrides={"data.workers": value})
    assert len(str(caught.value)) < 400


def test_a_wrong_value_that_aliases_repeat_is_shown_in_short() -> None:
    """Below the bound of values, a message still shows the beginning alone."""
    text = "name: wide\ntraining: {epochs: " + "[" + ", ".join(["x"] * 50_000) + "]}"
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, origin="wide.yaml")
    assert len(str(caught.value)) < 1000


def test_a_long_text_that_aliases_repeat_counts_for_its_length() -> None:
    text = f"name: wide\na: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 50)}]\n"
    with pytest.raises(ConfigError, match="aliases stand for more than"):
        parse_recipe(text, origin="wide.yaml")


def test_a_thousand_problems_are_told_in_short() -> None:
    text = "name: wide\ndata: {subsets: [" + ", ".join(["7"] * 1000) + "]}"
    with pytest.raises(ConfigError, match="980 more problems") as caught:
        parse_recipe(text, origin="wide.yaml")
    assert len(str(caught.value)) < 10_000
