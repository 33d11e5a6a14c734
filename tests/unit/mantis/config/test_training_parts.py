"""Learning rates of parts, and adapters beside whole parts: what a recipe may say, and the errors."""

import pytest

from mantis.config.recipe import parse_recipe
from mantis.config.training_settings import PartSettings
from mantis.errors import ConfigError
from mantis.models.registry import check_parts, family_names

MINIMAL = "name: test\ntraining: {train: [vision, projector, text]"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("parts: {vison: {learning_rate: 1.0e-6}}", r"training\.parts names 'vison': Input should be 'vision', "),
        ("parts: {vision: {learning_rate: 0}}", r"training\.parts\.vision\.learning_rate = 0: .*greater than 0"),
        ("parts: {vision: {rate: 1}}", r"training\.parts\.vision\.rate = 1 is not a field"),
        ("parts: {vision: {}}", r"parts\.vision sets nothing; give learning_rate or weight_decay, or remove vision"),
        (
            "parts: {embeddings: {weight_decay: 0}}",
            r"parts names embeddings, but train = \[vision, projector, text\] freezes it; add it to train, or ",
        ),
        ("adapter: {whole: [embeddings]}", r"adapter\.whole names embeddings, but train = .* freezes it; add it to"),
        ("adapter: {whole: [vison]}", r"training\.adapter\.whole\.0 = 'vison': Input should be 'vision'"),
        (
            "adapter: {whole: [vision, projector, text]}",
            r"adapter\.whole = \[vision, projector, text\] leaves no part of train = .* for adapters; remove a part",
        ),
        (
            "zero_stage: 2, adapter: {whole: [vision], quantized: [vision, text]}",
            "whole and quantized both name vision; quantized weights cannot be trained, so remove it",
        ),
        (
            "adapter: {targets: [q_proj, lm_head], modules_to_save: [lm_head]}",
            "modules_to_save and targets both name lm_head; a saved module gets no adapter, so remove it",
        ),
    ],
)
def test_a_contradiction_names_field_value_and_remedy(fields: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_recipe(f"{MINIMAL}, {fields}}}", origin="r.yaml")


def test_a_part_takes_what_it_does_not_set_from_the_training() -> None:
    overrides = {"training.parts.vision.learning_rate": "2e-6", "training.weight_decay": "0.1"}
    training = parse_recipe(f"{MINIMAL}}}", origin="r.yaml", overrides=overrides).training
    assert training.parts == {"vision": PartSettings(learning_rate=2e-6)}
    assert [training.peak_rate(part) for part in training.train] == [2e-6, 1e-5, 1e-5]
    assert [training.decay(part) for part in training.train] == [0.1, 0.1, 0.1]
    overrides = {"training.parts.text.weight_decay": "0.0", "training.weight_decay": "0.1"}
    training = parse_recipe(f"{MINIMAL}}}", origin="r.yaml", overrides=overrides).training
    assert [training.decay(part) for part in training.train] == [0.1, 0.1, 0.0]


def test_parts_decide_the_identity_and_their_absence_does_not() -> None:
    without = parse_recipe(f"{MINIMAL}}}", origin="r.yaml")
    slow, slower = (
        parse_recipe(f"{MINIMAL}, parts: {{vision: {{learning_rate: {rate}}}}}}}", origin="r.yaml")
        for rate in ("2.0e-6", "1.0e-6")
    )
    assert not [name for name in without.identity() if name.startswith("training.parts")]
    assert len({without.default_run_id(), slow.default_run_id(), slower.default_run_id()}) == 3


@pytest.mark.parametrize(
    ("family", "fields", "words"),
    [
        ("fuyu", "parts: {vision: {learning_rate: 1.0e-6}}", r"training\.parts names vision, .* of family fuyu has no"),
        (
            "fuyu",
            "adapter: {whole: [vision]}",
            r"training\.adapter\.whole names vision, .* Parts of fuyu: projector, te",
        ),
        (
            "llava-clip",
            "zero_stage: 2, adapter: {quantized: [cross_attention]}",
            r"training\.adapter\.quantized names cross_attention, .* Remove cross_attention from training\.adapter",
        ),
    ],
)
def test_a_part_that_the_family_lacks_is_refused(family: str, fields: str, words: str) -> None:
    recipe = parse_recipe(f"{MINIMAL}, {fields}}}", origin="r.yaml", overrides={"model.family": family})
    with pytest.raises(ConfigError, match=words):
        check_parts(recipe)


@pytest.mark.parametrize("family", family_names())
def test_the_demo_trains_the_parts_that_a_family_has(family: str) -> None:
    every = "[vision, projector, text, cross_attention, embeddings]"
    check_parts(parse_recipe("name: x", origin="r", overrides={"model.family": family, "training.train": every}))
