from pathlib import Path
from typing import Any

import pytest

from components.training.engine.deepspeed_config import as_config, deepspeed_options
from components.training.sizing import measure as fitting
from components.training.sizing.estimate import checkpoint_bytes, needs, shape, shapes, upload_bandwidth
from mantis.config.recipe import parse_recipe
from mantis.config.training_settings import TrainingSettings
from mantis.errors import ConfigError
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family

HELD = ("weights", "secondary", "gradients", "optimizer", "gathered", "logits")
RECIPE = """
name: small
model: {from_scratch: {text_width: 64, text_layers: 2, vision_width: 32, vision_layers: 1, vocabulary: 600}}
training: {precision: fp32, gradient_checkpointing: false, train: [projector, text]}
"""


def test_the_published_figures() -> None:
    assert checkpoint_bytes(shape("mantis-idefics2")) == pytest.approx(101e9, rel=0.01)
    # 16 bytes of weights and states per parameter, and 2 of gradients more since they are summed in fp32: too much
    # for one GPU, no matter for 16.
    assert needs(shape("mantis-clip"), memory=8e10, ranks=1, zero_stage=3).budget == 0
    assert needs(shape("mantis-clip"), memory=4e10, ranks=16, zero_stage=3).budget > 8192


def test_more_than_one_node_holds_the_weights_once_more_on_each() -> None:
    model = shape("mantis-idefics2")
    one = needs(model, memory=4e10, ranks=8, zero_stage=3)
    two = needs(model, memory=4e10, ranks=16, zero_stage=3)
    small = needs(model, memory=4e10, ranks=16, zero_stage=3, per_node=4)
    assert one.secondary == 0
    assert two.secondary == pytest.approx(2 * 8.4e9 / 8)
    assert small.secondary == pytest.approx(2 * two.secondary)
    assert two.states == pytest.approx(sum(vars(two)[part] for part in HELD) + 3e9)
    assert needs(model, memory=4e10, ranks=16, zero_stage=2).secondary == 0


def test_that_is_what_the_engine_is_told() -> None:
    def hpz(nodes: int, stage: int) -> object:
        settings = TrainingSettings(nodes=nodes, gpus_per_node=8, zero_stage=stage)
        options = as_config(deepspeed_options(settings, parameters=8_400_000_000, cuda=True))
        return options["zero_optimization"].get("zero_hpz_partition_size")

    assert (hpz(2, 3), hpz(1, 3), hpz(2, 2)) == (8, None, None)


@pytest.mark.parametrize("name", list(shapes()))
def test_more_of_anything_is_never_worse(name: str) -> None:
    few = needs(shape(name), memory=4e10, ranks=8, zero_stage=3)
    assert needs(shape(name), memory=8e10, ranks=8, zero_stage=3).budget > few.budget
    assert needs(shape(name), memory=4e10, ranks=16, zero_stage=3).states < few.states
    assert needs(shape(name), memory=4e10, ranks=8, zero_stage=3, cpu_offload=True).states < few.states
    assert needs(shape(name), memory=4e10, ranks=8, zero_stage=2).weights > few.weights


def test_a_rarer_checkpoint_needs_less_bandwidth() -> None:
    often, seldom = (
        upload_bandwidth(shape("mantis-clip"), ranks=16, peak=3.12e14, batch=128, every=every) for every in (50, 500)
    )
    assert often == pytest.approx(10 * seldom)


def test_an_unknown_model_is_told_from_the_known() -> None:
    with pytest.raises(ConfigError, match="mantis-fuyu"):
        shape("mantis-gpt")


def test_a_trial_is_as_large_as_asked_and_needs_memory() -> None:
    recipe = parse_recipe(RECIPE, origin="test")
    trial = fitting.run_trial(recipe, 2000)
    assert 2000 <= trial.tokens < 2200
    assert trial.patches > 0
    assert 1e8 < trial.peak < 1e10


def test_a_trial_of_a_model_from_weights_reads_its_own_tokenizer(tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE, origin="test")
    kind = family(recipe.model.family)
    tokenizer = train_tokenizer(
        ["what is this", "a plain picture"] * 4, vocabulary=300, special_tokens=kind.special_tokens()
    )
    kind.build(kind.processor(tokenizer, recipe.model), seed=0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    overrides = {"model.base": str(tmp_path), "model.from_scratch": "null"}
    trial = fitting.run_trial(parse_recipe(RECIPE, origin="test", overrides=overrides), 2000)
    assert 2000 <= trial.tokens < 2400


def test_the_largest_that_fits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # The search alone: what a trial takes is another test's.
    def grow(_: Any, tokens: Any) -> Any:
        return fitting.Trial(tokens=tokens, patches=tokens, peak=1000 * tokens)

    monkeypatch.setattr(fitting, "_try", grow)
    found = fitting.fit(parse_recipe(RECIPE, origin="test"), memory=5.5e6)
    assert 0.85 * 5500 < found.best.tokens <= 5500
    assert all(trial.peak <= found.memory for trial in found.trials)
    with pytest.raises(ConfigError, match="does not fit"):
        fitting.fit(parse_recipe(RECIPE, origin="test"), memory=1000)
