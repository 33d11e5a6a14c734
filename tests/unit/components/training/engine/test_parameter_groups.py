from typing import Any

import pytest
import torch

from components.training.engine.adapter_training import add_adapters, is_adapter, quantize
from components.training.engine.parameter_groups import (
    ParameterGroup,
    adamw_groups,
    check_same,
    freeze,
    parameter_groups,
)
from mantis.config.training_settings import AdapterSettings, PartSettings, TrainingSettings
from mantis.errors import MantisError
from mantis.models.registry import family
from mantis.models.verification.family_checks import family_case

EVERY: Any = ("vision", "projector", "text")


@pytest.fixture
def model() -> Any:
    return family_case("llava-clip").model()


LLAVA = family("llava-clip")


def groups_of(model: Any, **changes: Any) -> tuple[ParameterGroup, ...]:
    settings = TrainingSettings.model_validate({"train": EVERY, **changes})
    freeze(model, LLAVA, settings)
    return parameter_groups(model, LLAVA, settings)


def test_without_parts_there_is_a_group_for_each_decay(model: Any) -> None:
    (one,) = groups_of(model)
    assert one.parameters == tuple(name for name, _ in model.named_parameters())
    weights, vectors = groups_of(model, weight_decay=0.1)
    assert (weights.weight_decay, vectors.weight_decay) == (0.1, 0.0)
    named = dict(model.named_parameters())
    assert {named[name].ndim for name in vectors.parameters} == {1}
    assert weights.parameters == tuple(name for name, weight in named.items() if weight.ndim > 1)


def test_every_parameter_has_the_rate_and_decay_of_its_part(model: Any) -> None:
    parts = {"vision": PartSettings(learning_rate=2e-6), "projector": PartSettings(weight_decay=0.3)}
    groups = groups_of(model, weight_decay=0.1, parts=parts)
    found = {name: (group.learning_rate, group.weight_decay) for group in groups for name in group.parameters}
    assert len(groups) == 5  # rates and decays of weights of three parts; vectors of two rates
    for name, parameter in model.named_parameters():
        part = LLAVA.parameter_group(name)
        decay = {"vision": 0.1, "projector": 0.3, "text": 0.1}[part] if parameter.ndim > 1 else 0.0
        assert found[name] == (2e-6 if part == "vision" else 1e-5, decay), name


def test_parts_with_the_same_settings_share_a_group(model: Any) -> None:
    parts = {"vision": PartSettings(learning_rate=2e-6), "projector": PartSettings(learning_rate=2e-6)}
    slow, rest = groups_of(model, parts=parts)
    assert (slow.parts, rest.parts) == (("vision", "projector"), ("text",))
    optimizer = torch.optim.AdamW(adamw_groups(model, (slow, rest)))
    assert [group["lr"] for group in optimizer.param_groups] == [2e-6, 1e-5]


def with_adapters(model: Any, **adapter: Any) -> dict[str, bool]:
    """Whether each parameter is trained."""
    settings = TrainingSettings(train=("projector", "text"), zero_stage=2, adapter=AdapterSettings(**adapter))
    add_adapters(model, LLAVA, settings, seed=0)
    freeze(model, LLAVA, settings)
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def test_adapters_stand_beside_a_whole_part_and_a_saved_module(model: Any) -> None:
    trained = with_adapters(model, whole=("projector",), modules_to_save=("lm_head", "language_model.layers.0.mlp"))
    assert not any("projector" in name for name in trained if is_adapter(name))
    assert {name for name, is_trained in trained.items() if is_trained and not is_adapter(name)} == {
        name
        for name in trained
        if "multi_modal_projector" in name or name == "lm_head.weight" or "language_model.layers.0.mlp" in name
    }
    assert not any("language_model.layers.0.mlp" in name for name in trained if is_adapter(name))
    assert any("language_model.layers.1.mlp" in name for name in trained if is_adapter(name))


def test_a_saved_module_is_not_quantized(model: Any) -> None:
    adapter = AdapterSettings(quantized=("text",), modules_to_save=("layers.0.mlp",))
    quantize(model, LLAVA, TrainingSettings(train=("text",), zero_stage=2, adapter=adapter))
    first, second, *_ = model.model.language_model.layers
    assert type(first.mlp.up_proj) is torch.nn.Linear
    assert type(second.mlp.up_proj) is not torch.nn.Linear


def test_rslora_divides_by_the_root_of_the_rank(model: Any) -> None:
    with_adapters(model, kind="lora", rank=16, alpha=8, rslora=True, targets=("q_proj",))
    layer = model.model.language_model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(8 / 16**0.5)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (
            {"modules_to_save": ("lm_hed",)},
            r"modules_to_save names 'lm_hed', but the model has no such .* Did you mean",
        ),
        (
            {"modules_to_save": ("vision_tower",)},
            r"'vision_tower', which is of vision, but training\.train = .* freezes",
        ),
        (
            {"whole": ("projector",), "modules_to_save": ("linear_1",)},
            r"'linear_1', which is of projector, and training\.adapter\.whole trains projector whole\. Remove linear_1",
        ),
        (
            {"whole": ("projector",), "targets": ("linear_1",)},
            r"names 'linear_1', but the parts with adapters",
        ),
    ],
)
def test_a_module_that_cannot_be_trained_so_is_refused(model: Any, adapter: Any, words: str) -> None:
    with pytest.raises(MantisError, match=words):
        with_adapters(model, **adapter)


def test_a_saved_module_with_the_weights_of_another_is_refused(model: Any) -> None:
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    with pytest.raises(MantisError, match=r"'lm_head', whose weights are those of model\.language_model\.embed_tokens"):
        with_adapters(model, modules_to_save=("lm_head",))


def test_a_checkpoint_of_other_parts_is_refused_by_name(model: Any) -> None:
    saved = groups_of(model, parts={"vision": PartSettings(learning_rate=2e-6)})
    check_same(saved, saved, origin="step-1")
    check_same(None, saved, origin="step-1")
    for other, words in (
        (
            groups_of(model),
            "vision has learning rate 2e-06 and weight decay 0.0 there, and learning rate 1e-05 and weight",
        ),
        (
            groups_of(model, parts={"vision": PartSettings(learning_rate=2e-6, weight_decay=0.1)}),
            r"vision has .* weight decay 0.0 there, and learning rate 2e-06 and weight decay 0\.1 in this recipe",
        ),
        (groups_of(model, train=("projector", "text")), "vision has .* there, and no trained parameter in this recipe"),
    ):
        with pytest.raises(MantisError, match=rf"step-1 was trained with other parameter groups: {words}"):
            check_same(saved, other, origin="step-1")


def test_a_parameter_in_another_place_is_refused_by_name(model: Any) -> None:
    first, *others = groups_of(model, parts={"vision": PartSettings(learning_rate=2e-6)})
    moved = first.model_copy(update={"parameters": first.parameters[::-1]})
    with pytest.raises(
        MantisError, match=rf"{first.parameters[0]} is in position 0 of group 0 .* there, and in position"
    ):
        check_same((first, *others), (moved, *others), origin="step-1")


@pytest.mark.parametrize("change", [{"learning_rate": 1.0}, {"weight_decay": 0.5}, {"parts": ("text", "vision")}])
@pytest.mark.parametrize("at", range(4))
def test_every_difference_of_a_group_is_refused_in_words(model: Any, change: Any, at: int) -> None:
    groups = groups_of(model, weight_decay=0.1, parts={"vision": PartSettings(learning_rate=2e-6)})
    assert len(groups) == 4
    others = tuple(group.model_copy(update=change) if index == at else group for index, group in enumerate(groups))
    with pytest.raises(MantisError, match=r"step-1 was trained with other parameter groups: .* there, and "):
        check_same(groups, others, origin="step-1")
