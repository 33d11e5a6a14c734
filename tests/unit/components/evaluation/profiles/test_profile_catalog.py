"""A profile is resolved for a benchmark and a family: the benchmark's values, then those of the wrapper."""

from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import known_benchmarks, load_benchmark
from components.evaluation.profiles.profile_catalog import load_profile, profiles, resolve_profile
from components.evaluation.profiles.prompt_template import Prompt
from mantis.config.evaluation_settings import DEFAULT_PROFILE
from mantis.errors import ConfigError
from mantis.models.registry import family_names
from pipelines.execution.resolve import resolve_run
from tests.helpers.tested_families import PAPER


def resolved(name: str, profile: str, family: str = "") -> tuple[str, str, int]:
    found = load_benchmark(name, profile=profile, family=family).resolved
    return found.name, found.images, found.decoding.max_new_tokens


def test_every_profile_of_every_benchmark_and_family_resolves() -> None:
    assert DEFAULT_PROFILE in profiles()
    for name in known_benchmarks():
        for profile in profiles():
            for family in ("", *family_names()):
                assert load_benchmark(name, profile=profile, family=family).resolved.prompt.templates


def test_every_family_of_the_paper_has_its_wrapper_in_the_official_profile() -> None:
    assert set(load_profile("official").families) == set(PAPER)


def test_the_wrapper_of_a_family_decides_layout_and_limit() -> None:
    assert resolved("blink", "official") == ("official", "interleaved", 1024)
    assert resolved("blink", "official", "llava-siglip") == ("official", "spaced", 4096)
    assert resolved("blink", "official", "idefics2") == ("official", "images-first", 512)
    assert resolved("blink", "official", "of-another-package") == ("official", "interleaved", 1024)
    assert resolved("mirb", "official", "idefics2") == ("official", "interleaved", 15)  # MIRB's own code asked
    assert resolved("blink", "lmms-eval", "idefics2") == ("lmms-eval", "interleaved", 1024)


def test_values_of_the_benchmark_hold_in_their_own_profile_alone() -> None:
    assert load_benchmark("mementos", profile="official").resolved.max_images == 13
    assert load_benchmark("mementos", profile="direct").resolved.max_images is None
    assert resolved("blink", "direct") == ("direct", "interleaved", 8)


def test_a_profile_may_have_a_rule_of_its_own() -> None:
    own = Prompt.model_validate({"templates": {"short": "x"}, "metric": "vqa"})
    assert resolve_profile("official", {"official": own}).metric == "vqa"
    assert resolve_profile("direct", {"official": own}).metric is None


def test_a_benchmark_without_the_profile_says_what_is_used() -> None:
    found = load_benchmark("nlvr2", profile="lmms-eval", family="idefics2").resolved
    assert (found.name, found.images) == ("official", "images-first")
    assert found.substitution("nlvr2") == "nlvr2 has no profile lmms-eval: the profile official is used"
    mine = resolve_profile("official", {"mine": Prompt.model_validate({"templates": {"short": "x"}})})
    assert mine.substitution("pets") == (
        "pets has no profile official: the profile direct is used, with the prompt `mine`"
    )
    assert load_benchmark("nlvr2", profile="official").resolved.substitution("nlvr2") is None


def test_an_unknown_profile_says_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.profile = 'ofical' is no profile") as caught:
        load_profile("ofical")
    assert caught.value.remedy == "Did you mean official? Choose one of direct, official, lmms-eval."


@pytest.mark.parametrize("change", [{"source": "elsewhere"}, {"metric": "vqa"}, {"max_new_tokens": 3}, {"stop": ["x"]}])
def test_the_identity_of_a_prompt_is_its_text_and_images(change: Any) -> None:
    plain = {"templates": {"short": "x"}}
    before = resolve_profile("direct", {"direct": Prompt.model_validate(plain)}).identity()
    assert resolve_profile("direct", {"direct": Prompt.model_validate(plain | change)}).identity() == before
    for other in ({"option": "{text}"}, {"images": "spaced"}, {"max_images": 2}, {"capitalize": True}):
        changed = resolve_profile("direct", {"direct": Prompt.model_validate(plain | other)})
        assert changed.identity() != before


@pytest.mark.parametrize("name", known_benchmarks())
def test_every_entry_names_its_source_and_every_benchmark_has_a_row(name: str) -> None:
    benchmark = load_benchmark(name)
    assert benchmark.example is not None
    assert [entry for entry, prompt in benchmark.prompts.items() if entry != "direct" and not prompt.source] == []


def test_one_profile_holds_for_all_benchmarks_of_a_recipe() -> None:
    recipe = resolve_run("mantis-siglip", {"evaluation.profile": "lmms-eval"}, "")[1]
    used = {
        name: load_benchmark(name, profile=recipe.evaluation.profile, family=recipe.model.family).resolved.name
        for name in recipe.evaluation.benchmarks
    }
    assert {name: profile for name, profile in used.items() if profile != "lmms-eval"} == {"nlvr2": "official"}
