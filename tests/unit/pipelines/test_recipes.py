"""The shipped recipes hold the paper's values, and name only what exists."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from components.data.published.published_sets import published
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from mantis.config.model_settings import SCRATCH, FromScratch, ImageSettings, ModelSettings
from mantis.config.recipe import Recipe, parse_recipe
from mantis.errors import ConfigError, InputError
from mantis.models.conversation import ImageSize
from mantis.models.processing.chat_templates import load_chat_template
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family, family_names
from mantis.models.weights.catalog import named_bases
from mantis.models.weights.mirror import model_identity
from mantis.store.local import LocalStore
from pipelines.execution.preflight import check_weights
from pipelines.execution.resolve import published_recipe, resolve_run, shipped_recipes

STAGE_2 = {"epochs": 1, "global_batch_size": 128, "zero_stage": 3, "nodes": 2, "gpus_per_node": 8, "seed": 42}
ALL = ("vision", "projector", "text")
# arXiv 2405.01483, training details, and the official scripts: learning rate, weight decay, context, what is trained,
# gradient checkpointing.
PAPER = {
    "mantis-clip": (1e-5, 0.0, 8192, ("projector", "text"), True),
    "mantis-siglip": (1e-5, 0.0, 8192, ("projector", "text"), True),
    "mantis-idefics2": (5e-6, 0.01, 8192, ALL, True),
    "mantis-fuyu": (1e-5, 0.01, 8192, ("projector", "text"), True),
    "mantis-flamingo": (5e-6, 0.01, 2048, ("projector", "cross_attention", "embeddings"), False),
    "pretrain-clip": (1e-3, 0.0, 8192, ("projector",), False),
    "pretrain-siglip": (1e-3, 0.0, 8192, ("projector",), False),
}
# The bases, and the positions that an image of 1920 x 1080 takes.
MODELS = {
    "mantis-clip": ("llama3-8b-instruct", "clip-vit-large-patch14-336", 576),
    "mantis-siglip": ("llama3-8b-instruct", "siglip-so400m-patch14-384", 728),
    "mantis-idefics2": ("idefics2-8b", "", 64),
    "mantis-fuyu": ("fuyu-8b", "", 24 * 44 + 3),  # 24 rows of 43 patches and a newline; what opens and ends an image
    "mantis-flamingo": ("idefics-9b", "", 1),
    "pretrain-clip": ("llama3-8b-instruct", "clip-vit-large-patch14-336", 576),
    "pretrain-siglip": ("llama3-8b-instruct", "siglip-so400m-patch14-384", 728),
}


def shipped(name: str) -> Recipe:
    return resolve_run(name, {}, "")[1]


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_names_what_exists(name: str) -> None:
    recipe = shipped(name)
    assert recipe.name == name
    assert recipe.description
    family(recipe.model.family)
    load_chat_template(recipe.model.prompt)
    assert {subset.name for subset in recipe.data.subsets} <= set(published())
    for benchmark in recipe.evaluation.benchmarks:
        load_benchmark(benchmark, profile=recipe.evaluation.profile)
    named = named_bases(recipe.model)
    addresses = {
        field for field in ("base", "vision", "projector") if getattr(recipe.model, field) not in ("", SCRATCH)
    }
    assert set(named) == addresses, "a shipped recipe names published weights, never a folder"
    assert all(recipe.model.family in base.families for base in named.values())


@pytest.mark.parametrize("name", PAPER)
def test_the_numbers_are_the_papers(name: str) -> None:
    recipe = shipped(name)
    training = recipe.training
    first = name.startswith("pretrain")
    expected = STAGE_2 | ({"global_batch_size": 256, "zero_stage": 2} if first else {})
    assert {field: getattr(training, field) for field in expected} == expected
    rate, decay, context, trained, checkpointing = PAPER[name]
    assert (training.learning_rate, training.weight_decay) == (rate, decay)
    assert recipe.data.context_length == context
    assert (training.train, training.gradient_checkpointing) == (trained, checkpointing)
    assert (training.betas, training.eps, training.max_grad_norm) == ((0.9, 0.999), 1e-8, 1.0)
    assert (training.schedule.kind, training.schedule.warmup_ratio) == ("cosine", 0.03)
    assert (training.precision, training.launcher) == ("bf16", "trainjob")
    assert recipe.data.mixture == ("llava-pretrain" if first else "mantis-instruct")
    assert recipe.model.prompt == ("plain" if first else family(recipe.model.family).template)


@pytest.mark.parametrize("name", MODELS)
def test_the_shapes_are_the_bases(name: str) -> None:
    model = shipped(name).model
    base, vision, tokens = MODELS[name]
    assert (model.base, model.vision) == (base, vision)
    kind = family(model.family)
    tokenizer = train_tokenizer([], vocabulary=300, special_tokens=kind.special_tokens())
    assert kind.processor(tokenizer, model).image_tokens(ImageSize(width=1920, height=1080)) == tokens


PUBLISHED = [name for name in shipped_recipes() if shipped(name).model.base != SCRATCH]


class TunedShape(FromScratch):
    """As if somebody tuned the demo by its defaults."""

    text_layers: int = 7
    vocabulary: int = 5000


class TunedModel(ModelSettings):
    """Models of a code in which the defaults of `from_scratch` are others."""

    from_scratch: TunedShape | None = Field(None, validate_default=True)


class TunedRecipe(Recipe):
    """Recipes of that code."""

    model: TunedModel = TunedModel()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tuned_default_of_from_scratch_moves_no_published_model(
    name: Any, local_store: LocalStore, tmp_path: Path
) -> None:
    recipe = shipped(name)
    tuned = TunedRecipe.model_validate(yaml.safe_load(recipe.to_yaml()))
    assert TunedRecipe(name="x").model.from_scratch.text_layers == 7
    assert tuned.default_run_id() == recipe.default_run_id()
    assert tuned.to_yaml() == recipe.to_yaml()
    # The steps `assemble` and `train` hash this, with what the weights hold.
    (tmp_path / "config.json").write_text("{}")
    content = dict.fromkeys(named_bases(recipe.model), str(tmp_path))
    both = [model_identity(local_store, each.model.model_copy(update=content)) for each in (tuned, recipe)]
    assert both[0] == both[1]
    assert both[0]["content"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_says_nothing_of_from_scratch(name: Any) -> None:
    recipe = shipped(name)
    assert recipe.model.from_scratch is None
    printed = yaml.safe_load(recipe.to_yaml())
    assert parse_recipe(recipe.to_yaml(), origin="again") == recipe
    fields = {"from_scratch", *FromScratch.model_fields}
    assert not fields & (printed["model"].keys() | printed["model"]["image"].keys())
    assert not fields & recipe.model.identity().keys()
    with pytest.raises(
        ConfigError, match=rf"model\.from_scratch = {{'text_layers': 4}}: model\.base = '{recipe.model.base}'"
    ):
        resolve_run(name, {"model.from_scratch.text_layers": "4"}, "")


def test_the_demo_prints_every_field() -> None:
    printed = yaml.safe_load(shipped("demo").to_yaml())
    assert printed["model"]["from_scratch"].keys() == FromScratch.model_fields.keys()
    assert printed["model"]["image"].keys() == ImageSettings.model_fields.keys()
    changed = resolve_run("demo", {"model.from_scratch.text_layers": "4"}, "")[0]
    assert changed != resolve_run("demo", {}, "")[0]


def test_preflight_names_every_model_that_was_not_fetched(local_store: LocalStore) -> None:
    with pytest.raises(InputError) as caught:
        check_weights(local_store, shipped("mantis-clip"))
    wanted = "mantis model fetch llama3-8b-instruct clip-vit-large-patch14-336 mantis-8b-clip-llama3-pretrained`."
    assert wanted in caught.value.remedy


def test_preflight_refuses_weights_of_another_family(local_store: LocalStore) -> None:
    recipe = parse_recipe("name: x\nmodel: {family: llava-clip, base: fuyu-8b}", origin="x")
    with pytest.raises(ConfigError, match=r"model\.base = 'fuyu-8b' is for fuyu, not llava-clip"):
        check_weights(local_store, recipe)


def test_the_ablations_have_the_two_published_adapters() -> None:
    """QLoRA and DoRA on one node of 8 GPUs under ZeRO-2; train_idefics2.py and train_mllava.py."""
    recipes = {name: shipped(f"ablation-{name}") for name in ("idefics2", "siglip")}
    idefics2, llama = (recipes[name].training.adapter for name in ("idefics2", "siglip"))
    assert (idefics2.rank, idefics2.alpha, idefics2.dropout, idefics2.init) == (8, 8, 0.1, "gaussian")
    assert set(idefics2.targets) == {f"{name}_proj" for name in ("down", "gate", "up", "k", "q", "v", "o")}
    assert (llama.rank, llama.alpha, llama.dropout, llama.targets) == (128, 256, 0.05, ())
    assert "vision" not in llama.quantized
    for recipe in recipes.values():
        training = recipe.training
        assert (training.adapter.kind, training.zero_stage, training.global_batch_size) == ("dora", 2, 128)
        assert (training.nodes, training.gpus_per_node) == (1, 8)
    assert recipes["idefics2"].training.learning_rate == 5e-6
    assert recipes["siglip"].training.learning_rate == 1e-5


@pytest.mark.parametrize("name", family_names())
def test_every_family_has_a_recipe_with_its_own_prompt(name: str) -> None:
    recipe = shipped(published_recipe(name))
    assert recipe.model.prompt == family(name).template
