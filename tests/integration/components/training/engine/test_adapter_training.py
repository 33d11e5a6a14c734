"""QLoRA, LoRA and DoRA: the step against peft alone, and the whole way to a merged model."""

import json
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForImageTextToText

from components.conversion.step import convert
from components.training.engine.adapter_training import quantize
from components.training.step import train
from mantis.config.training_settings import AdapterSettings, TrainingSettings
from mantis.errors import MantisError
from mantis.models.registry import family
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.training import MakeRun, Torchrun
from tests.helpers.step_checks import check_steps

DORA = "{rank: 4, alpha: 8, dropout: 0.1, quantized: [projector, text]}"


@pytest.fixture(scope="module")
def figures(make_run: MakeRun, torchrun: Torchrun, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = {name: make_run(name, {"model.family": name})[0] for name in ("llava-clip", "idefics2")}
    out = tmp_path_factory.mktemp("adapter-step") / "figures"
    done = torchrun("compare_adapter_step", 2, made["idefics2"].store.url, out, *made)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.with_name("figures.0").read_text())


@pytest.mark.parametrize("name", ["llava-clip", "idefics2"])
def test_qlora_and_dora_step_equals_peft_alone(figures: Any, name: str) -> None:
    check_steps(figures[name])


@pytest.mark.parametrize(
    ("adapter", "stage"),
    [
        pytest.param(DORA, 2, id="qlora+dora"),
        pytest.param("{kind: lora, rank: 4}", 3, id="lora", marks=pytest.mark.slow),
    ],
)
def test_trained_adapters_become_a_model_that_transformers_loads(make_run: MakeRun, adapter: str, stage: int) -> None:
    run, mixture = make_run(
        f"adapter-{stage}", {"training.adapter": adapter, "training.zero_stage": str(stage), "training.max_steps": "12"}
    )
    checkpoint = train(run, mixture)
    assert checkpoint.summary["last_loss"] < checkpoint.summary["first_loss"]
    names = [file.name for file in checkpoint.files]
    shards = [file for file in checkpoint.files if file.name.endswith("mp_rank_00_model_states.pt")]
    base = next(file.size for file in checkpoint.files if file.name == "model/model.safetensors")
    assert "model/adapter_config.json" in names
    assert all(file.size < base / 2 for file in shards), "frozen weights are not saved again and again"
    model = convert(run, checkpoint)
    folder = run.store.lance_uri(model.key)
    _, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.slow
def test_a_base_of_the_store_is_named_and_not_copied(make_run: MakeRun, shared_store: LocalStore) -> None:
    run, mixture = make_run("base-of-adapter", {"training.max_steps": "4"})
    base = convert(run, train(run, mixture)).key
    stored = {"model.base": shared_store.uri(base), "model.from_scratch": "null"}
    changes = {**stored, "training.adapter": "{rank: 4}", "training.max_steps": "4"}
    run, mixture = make_run("adapter-on-base", changes)
    checkpoint = train(run, mixture)
    names = {file.name for file in checkpoint.files}
    assert json.loads(shared_store.get(f"{checkpoint.key}/model/base.json"))["address"] == base
    assert not any(name.endswith(".safetensors") and name.startswith("model/") for name in names)
    assert convert(run, checkpoint).summary["parameters"] > 0
    weights = f"{base}/model.safetensors"
    kept = shared_store.get(weights)
    shared_store.put(weights, kept[:-1] + bytes([kept[-1] ^ 1]))
    changed, _ = make_run("adapter-on-changed-base", {**changes, "conversion.precision": "fp32"})
    with pytest.raises(MantisError, match="is not the file that was trained on"):
        convert(changed, checkpoint)


def test_quantized_weights_and_zero_3_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match=r"adapter\.quantized needs zero_stage: 2"):
        TrainingSettings(zero_stage=3, adapter=AdapterSettings(quantized=("text",)))


def build(run: Run) -> Any:
    """The run's tiny model and its family."""
    from mantis.models.processing.tokenizer_training import train_tokenizer

    kind = family(run.recipe.model.family)
    tokenizer = train_tokenizer(["red"], vocabulary=300, special_tokens=kind.special_tokens())
    return kind.build(kind.processor(tokenizer, run.recipe.model), seed=0), kind


def test_answering_leaves_quantized_weights_as_they_are(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU for which bitsandbytes has a kernel of its own, whose weights are others."""
    from bitsandbytes.nn import modules

    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    run, _ = make_run("answering", {"training.adapter": DORA, "training.zero_stage": "2"})
    model, kind = build(run)
    quantize(model, kind, run.recipe.training)
    layers = [layer for layer in model.eval().modules() if isinstance(layer, modules.Linear4bit)]
    assert layers
    for layer in layers:
        before = layer.weight.data.clone()
        with torch.no_grad():
            layer(torch.ones(2, layer.in_features))
        assert torch.equal(layer.weight.data, before)
