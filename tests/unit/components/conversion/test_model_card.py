"""What the licences of published bases ask of a model stands in its card."""

from typing import Any

import yaml

from components.conversion.model_card import model_card, notices
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest
from mantis.config.recipe import Recipe, parse_recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore


def card_of(store: Any, recipe: Recipe) -> tuple[dict[str, object], str]:
    made_by = MadeBy(run="r", step="train", revision=1, config_hash="c", code_version="v", image_digest="none")
    checkpoint = Manifest(kind=ArtifactKind.CHECKPOINT, key="checkpoints/c", fingerprint="c", made_by=made_by)
    run = Run(id="r", store=store, recipe=recipe)
    text = model_card(run, checkpoint, parameters=1, difference=0.0, merged=False)
    return yaml.safe_load(text.split("---")[1]), text


def recipe(model: str) -> Recipe:
    return parse_recipe(f"name: mine\nmodel: {model}", origin="test")


def test_llama3_asks_for_its_name_and_notice(local_store: LocalStore) -> None:
    made = recipe("{base: llama3-8b-instruct, vision: clip-vit-large-patch14-336}")
    front, text = card_of(local_store, made)
    assert front["license"] == "llama3"
    assert front["base_model"] == ["meta-llama/Meta-Llama-3-8B-Instruct", "openai/clip-vit-large-patch14-336"]
    assert "\n# Llama 3 mine\n" in text
    assert "**Built with Meta Llama 3**" in text
    assert "https://www.llama.com/llama3/license/" in text
    assert "openai/clip-vit-large-patch14-336: [MIT]" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Lineage", "## Training", "## Licence", "## Recipe"]
    assert notices(made.model).startswith("Meta Llama 3 is licensed under the Meta Llama 3 Community License")


def test_a_base_for_research_says_so(local_store: LocalStore) -> None:
    front, text = card_of(local_store, recipe("{family: fuyu, base: fuyu-8b}"))
    assert front["license"] == "cc-by-nc-4.0"
    assert "primarily for commercial advantage" in text
    assert "\n# mine\n" in text


def test_other_weights_are_named_and_none_is_said(local_store: LocalStore) -> None:
    front, text = card_of(local_store, recipe("{base: /my/model}"))
    assert (front["license"], front["base_model"]) == ("other", "/my/model")
    assert "Derived from /my/model" in text
    front, text = card_of(local_store, recipe("{base: scratch}"))
    assert front["license"] == "apache-2.0"
    assert "base_model" not in front
    assert "contains no published weights" in text
    assert notices(recipe("{base: scratch}").model) == ""
