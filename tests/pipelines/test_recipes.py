"""The shipped recipes against the published values, and against what the code knows."""

import pytest

from components.data.mixture import mixtures
from components.evaluation.benchmarks import load_benchmark
from components.models.bases import FIELDS, TINY, bases
from components.models.prompts import profile
from components.models.registry import FAMILIES, family
from pipelines.resolve import published_recipe, resolve_run, shipped_recipes

# arXiv 2405.01483 and the scripts of TIGER-AI-Lab/Mantis: learning rate, weight decay, batch, context, ZeRO stage, GPUs
PUBLISHED = {
    "mantis-clip": (1e-5, 0.0, 128, 8192, 3, 16),
    "mantis-siglip": (1e-5, 0.0, 128, 8192, 3, 16),
    "mantis-idefics2": (5e-6, 0.01, 128, 8192, 3, 16),
    "mantis-fuyu": (1e-5, 0.01, 128, 8192, 3, 16),
    "mantis-flamingo": (5e-6, 0.01, 128, 2048, 3, 16),
    "pretrain-clip": (1e-3, 0.0, 256, 8192, 2, 8),
    "pretrain-siglip": (1e-3, 0.0, 256, 8192, 2, 8),
    "ablation-idefics2": (5e-6, 0.01, 128, 8192, 2, 8),
    "ablation-siglip": (1e-5, 0.0, 128, 8192, 2, 8),
}
TOKENS = {
    "mantis-clip": 576,
    "mantis-siglip": 729,
    "mantis-idefics2": 64,
    "mantis-fuyu": 1056 + 3,
    "mantis-flamingo": 1,
}
TRAINED = {
    "mantis-clip": {"projector", "text"},
    "mantis-siglip": {"projector", "text"},
    "mantis-idefics2": {"vision", "projector", "text"},
    "mantis-fuyu": {"projector", "text"},
    "mantis-flamingo": {"projector", "cross_attention", "embeddings"},
    "pretrain-clip": {"projector"},
    "pretrain-siglip": {"projector"},
}


def recipe(name):
    return resolve_run(name, {}, "")[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    training, data = recipe(name).training, recipe(name).data
    gpus = training.nodes * training.processes_per_node
    found = (training.learning_rate, training.weight_decay, training.batch_size, data.context_length)
    assert (*found, training.zero_stage, gpus) == PUBLISHED[name]
    assert (training.epochs, training.precision, training.schedule.kind) == (1, "bf16", "cosine")
    assert (training.schedule.warmup_ratio, training.gradient_clipping) == (0.03, 1.0)
    assert (training.betas, training.epsilon, training.seed) == ((0.9, 0.999), 1e-8, 42)


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained(name):
    assert set(recipe(name).training.train) == TRAINED[name]
    assert recipe(name).training.adapter is None


@pytest.mark.parametrize("name", TOKENS)
def test_an_image_has_as_many_tokens_as_published(name):
    from components.models.conversation import Size

    model = recipe(name).model
    assert family(model.family).image_tokens(Size(width=1280, height=720), model) == TOKENS[name]


def test_adapters_are_the_two_published_ones():
    idefics2, llama = recipe("ablation-idefics2").training.adapter, recipe("ablation-siglip").training.adapter
    assert (idefics2.rank, idefics2.alpha, idefics2.dropout, idefics2.init) == (8, 8, 0.1, "gaussian")
    assert set(idefics2.targets) == {f"{name}_proj" for name in ("down", "gate", "up", "k", "q", "v", "o")}
    assert (llama.rank, llama.alpha, llama.dropout, llama.targets) == (128, 256, 0.05, ())
    assert "vision" not in llama.quantized
    assert idefics2.kind == llama.kind == "dora"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_names_only_what_exists(name):
    shipped = recipe(name)
    assert shipped.name == name
    assert shipped.description
    profile(shipped.model.prompt)
    assert shipped.model.family in FAMILIES
    assert all(getattr(shipped.model, field) in {"", TINY, *bases()} for field in FIELDS)
    assert shipped.data.mixture is None or shipped.data.mixture in mixtures()
    for benchmark in shipped.evaluation.benchmarks:
        load_benchmark(benchmark)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_recipe_with_its_own_prompt(name):
    found = recipe(published_recipe(name))
    assert found.name.startswith("mantis-")
    assert found.model.prompt == family(name).prompt
