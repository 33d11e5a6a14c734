"""Adapters that DeepSpeed trained, through the whole step."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from components.conversion.merge import adapter_merge
from components.conversion.step import convert
from components.conversion.zero.checkpoint_reader import read_step, step_to_convert
from mantis.artifacts.store_addresses import key_of
from mantis.errors import ConversionError
from mantis.runs.step_runner import Run
from tests.fixtures.conversion import MakeTrainedRun
from tests.helpers.rounding import assert_merged_alike

FOLDER = "checkpoints/trained"


def folder_of(run: Run, uri: str) -> Path:
    return Path(run.store.lance_uri(key_of(run.store, uri)))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_trained_adapters_are_merged_into_the_unquantized_base(trained_run: MakeTrainedRun, kind: str) -> None:
    run, checkpoint = trained_run(what=kind)
    model = convert(run, checkpoint)
    assert 0.0 <= float(model.summary["largest_logit_difference"]) < 1e-3
    folder = folder_of(run, model.key)
    assert not list(folder.glob("adapter_config.json"))
    found, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    trained = folder_of(run, checkpoint.key) / "model"
    (trained / "adapter_config.json").rename(trained.parent / "adapter_config.json")
    base = AutoModelForImageTextToText.from_pretrained(trained)
    peft = get_peft_model(base, LoraConfig.from_pretrained(str(trained.parent)))
    zero = read_step(run.store, checkpoint, step_to_convert(checkpoint, "last"))
    weights = {
        name: zero.tensors[name].read(0, zero.tensors[name].numel).view(zero.tensors[name].shape)
        for name in zero.trained - zero.frozen
    }
    assert not peft.load_state_dict(weights, strict=False).unexpected_keys
    expected = peft.merge_and_unload().state_dict()
    assert_merged_alike(found.state_dict(), {name: expected[name] for name in found.state_dict()})
    changed = [name for name, tensor in base_of(trained).items() if not torch.equal(tensor, expected[name])]
    assert sum("language_model.layers" in name for name in changed) == 2 * 4
    assert ("model.language_model.embed_tokens.weight" in changed) == (kind == "lora")
    assert any("multi_modal_projector" in name for name in changed) == (kind == "lora")


def base_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForImageTextToText.from_pretrained(folder).state_dict())


def test_a_wrong_merge_shows_against_peft(trained_run: MakeTrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, checkpoint = trained_run(what="dora")
    scaling = adapter_merge.AdapterConfig.scaling.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(adapter_merge.AdapterConfig, "scaling", property(lambda config: 1.5 * scaling(config)))
    with pytest.raises(ConversionError, match="logits differ by up to"):
        convert(run, checkpoint)
    assert list(run.store.list("models")) == []


def test_another_base_is_refused(trained_run: MakeTrainedRun) -> None:
    run, checkpoint = trained_run(what="lora")
    path = folder_of(run, checkpoint.key) / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConversionError, match=r"model\.safetensors is not the file that was trained on"):
        convert(run, checkpoint)
    assert load_file(path)
