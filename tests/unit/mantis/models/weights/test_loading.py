"""Small real checkpoints, written by transformers, then broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
)

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.errors import ConfigError, InputError, IntegrityError
from mantis.models.family import Family
from mantis.models.weights.loading import base_tokenizer, model_folder
from tests.helpers.planted_code import Planted, plant_module

NORM = "language_model.norm.weight"


@pytest.fixture
def settings(llava: Family) -> ModelSettings:
    shape = FromScratch(vision_width=32, text_width=32, text_layers=2)
    return ModelSettings(family=llava.name, from_scratch=shape)


@pytest.fixture
def whole(llava: Family, settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    llava.build(llava.processor(tokenizer, settings), seed=1).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def parts(llava: Family, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> ModelSettings:
    """A joint CLIP or SigLIP model and a LLaMA whose vocabulary lacks the last two tokens."""
    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**narrow, "image_size": 48, "patch_size": 24}
    if llava.name == "llava-clip":
        joint = CLIPModel(CLIPConfig(text_config=CLIPTextConfig(**narrow).to_dict(), vision_config=vision))
    else:
        joint = SiglipModel(SiglipConfig(text_config=SiglipTextConfig(**narrow).to_dict(), vision_config=vision))
    joint.save_pretrained(tmp_path / "tower")
    text = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) - 2, **narrow))
    text.save_pretrained(tmp_path / "text")
    return ModelSettings(family=llava.name, base=str(tmp_path / "text"), vision=str(tmp_path / "tower"))


def test_a_whole_checkpoint_is_loaded(
    llava: Family, settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, whole: Path
) -> None:
    built = llava.build(llava.processor(tokenizer, settings), seed=1).state_dict()
    for address in (str(whole), whole.as_uri()):
        loaded = llava.build(
            llava.processor(tokenizer, settings.model_copy(update={"base": address})), seed=2
        ).state_dict()
        assert loaded.keys() == built.keys()
        assert all(torch.equal(loaded[name], built[name]) for name in built)


def rewrite(folder: Path, change: Callable[..., Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors, next(name for name in tensors if name.endswith(("model.norm.weight", NORM))))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, name: tensors.pop(name), r"norm\.weight is missing"),
        (lambda tensors, name: tensors.update({name: torch.ones(33)}), r"norm\.weight is \[33\], expected \[32\]"),
        (lambda tensors, name: tensors.update({"stranger.weight": torch.ones(3)}), "stranger.weight is no tensor of"),
    ],
)
def test_a_tensor_that_does_not_fit_stops(
    llava: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    whole: Path,
    change: Callable[..., Any],
    words: str,
) -> None:
    rewrite(whole, change)
    with pytest.raises(InputError, match=words):
        llava.build(llava.processor(tokenizer, settings.model_copy(update={"base": str(whole)})), seed=1)


def test_a_model_of_another_image_size_stops(
    llava: Family, settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, whole: Path
) -> None:
    other = settings.model_copy(
        update={"base": str(whole), "image": settings.image.model_copy(update={"patch_size": 12})}
    )
    with pytest.raises(ConfigError, match="patch_size is 24, not 12"):
        llava.build(llava.processor(tokenizer, other), seed=1)


def test_tower_and_llama_are_composed(llava: Family, tokenizer: PreTrainedTokenizerFast, parts: ModelSettings) -> None:
    model = llava.build(llava.processor(tokenizer, parts), seed=1).state_dict()
    again = llava.build(llava.processor(tokenizer, parts), seed=1).state_dict()
    assert all(torch.equal(model[name], again[name]) for name in model)
    other = llava.build(llava.processor(tokenizer, parts), seed=2).state_dict()
    differ = {name for name in model if not torch.equal(model[name], other[name])}
    embeddings = {"model.language_model.embed_tokens.weight", "lm_head.weight"}
    fresh = {f"model.multi_modal_projector.linear_{i}.weight" for i in (1, 2)}
    assert differ == embeddings | fresh
    text = load_file(Path(parts.base) / "model.safetensors")
    for name, stored in (("model.language_model.embed_tokens.weight", "model.embed_tokens.weight"),):
        assert torch.equal(model[name][:-2], text[stored])
    tower = load_file(Path(parts.vision) / "model.safetensors")
    patches = next(name for name in model if name.endswith("patch_embedding.weight"))
    assert torch.equal(model[patches], tower["vision_model.embeddings.patch_embedding.weight"])
    assert not any(parameter.is_meta for parameter in model.values())


@pytest.mark.parametrize("kind", ["whole", "parts"])
def test_loaded_weights_answer_until_the_end_of_an_answer(
    llava: Family,
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerFast,
    whole: Path,
    parts: ModelSettings,
    kind: str,
) -> None:
    """The configuration of a base names the end of its own texts, which no trained answer has."""
    asked = parts if kind == "parts" else settings.model_copy(update={"base": str(whole)})
    processor = llava.processor(tokenizer, asked)
    if kind == "whole":
        config = json.loads((whole / "generation_config.json").read_text())
        (whole / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 5, "pad_token_id": 5}))
    generation: Any = llava.build(processor, seed=1).generation_config
    assert generation.eos_token_id == processor.end_of_answer != LlamaConfig().eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id


def test_a_tower_without_a_tensor_stops(
    llava: Family, tokenizer: PreTrainedTokenizerFast, parts: ModelSettings
) -> None:
    folder = Path(parts.vision)
    tensors = load_file(folder / "model.safetensors")
    del tensors["vision_model.embeddings.patch_embedding.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"patch_embedding\.weight is missing"):
        llava.build(llava.processor(tokenizer, parts), seed=1)


def test_the_projector_of_stage_one_is_taken(
    llava: Family, settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, whole: Path
) -> None:
    first = llava.build(llava.processor(tokenizer, settings), seed=1).state_dict()
    model = llava.build(
        llava.processor(tokenizer, settings.model_copy(update={"projector": str(whole)})), seed=2
    ).state_dict()
    same = {name for name in model if "projector" in name and torch.equal(model[name], first[name])}
    assert same == {name for name in model if "projector" in name}
    wide = settings.model_copy(
        update={"projector": str(whole), "from_scratch": settings.from_scratch.model_copy(update={"text_width": 64})}
    )
    with pytest.raises(InputError, match=r"linear_1\.weight is \[32, 32\], expected \[64, 32\]"):
        llava.build(llava.processor(tokenizer, wide), seed=2)


def test_a_folder_without_a_model_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        model_folder(str(tmp_path))


def test_pickled_weights_that_run_code_are_refused_by_name(
    llava: Family, settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, whole: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "it-was-run"
    tensors = load_file(whole / "model.safetensors")
    (whole / "model.safetensors").unlink()
    torch.save(tensors | {"client": Planted(marker)}, whole / "pytorch_model.bin")
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin wants posix\.system"):
        llava.build(llava.processor(tokenizer, settings.model_copy(update={"base": str(whole)})), seed=1)
    assert not marker.exists()


def test_code_beside_a_base_is_not_run(
    llava: Family, settings: ModelSettings, tokenizer: PreTrainedTokenizerFast, whole: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "it-was-run"
    plant_module(whole, marker)
    llava.build(llava.processor(tokenizer, settings.model_copy(update={"base": str(whole)})), seed=1)
    assert not marker.exists()


def test_the_base_tokenizer_gets_what_it_lacks(
    llava: Family, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    grown = base_tokenizer(tmp_path, [*llava.special_tokens(), "<new>"])
    assert len(grown) == len(tokenizer) + 1
    assert grown.backend_tokenizer.token_to_id("<new>") == len(tokenizer)
