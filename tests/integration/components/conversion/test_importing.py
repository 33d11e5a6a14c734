"""Released layouts become models of the store. The models are tiny; their files are as transformers releases them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    FuyuConfig,
    Idefics2Config,
    LlamaConfig,
    LlavaConfig,
    SiglipVisionConfig,
)

from components.conversion.importing import import_model
from mantis.artifacts.manifest import Manifest, check_files
from mantis.errors import ConfigError, InputError, MantisError
from mantis.models.verification.family_checks import family_case
from mantis.store.local import LocalStore
from tests.helpers.tested_families import others

TEXT = {"vocab_size": 101, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PICTURE = {"image_size": 28, "patch_size": 14}


def llava(vision: type) -> LlavaConfig:
    return LlavaConfig(
        vision_config=vision(**VISION, **PICTURE), text_config=LlamaConfig(**TEXT), image_token_index=100
    )


def idefics2() -> Idefics2Config:
    perceiver = {"resampler_n_latents": 2, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}
    return Idefics2Config(
        vision_config=VISION | PICTURE,
        perceiver_config=perceiver | {"num_key_value_heads": 2, "hidden_size": 16},
        text_config=TEXT | {"model_type": "mistral", "num_key_value_heads": 1, "pad_token_id": 0},
        image_token_id=100,
    )


CONFIGS = {
    "llava-clip": lambda: llava(CLIPVisionConfig),
    "llava-siglip": lambda: llava(SiglipVisionConfig),
    "idefics2": idefics2,
    "fuyu": lambda: FuyuConfig(**TEXT, image_size=12, patch_size=4, pad_token_id=0, image_token_id=100),
}
# A tensor's name in the released files, where transformers 5's class has another one.
RELEASED = {
    "llava-clip": "language_model.model.layers.0.mlp.up_proj.weight",  # as in mantis/models/mllava
    "llava-siglip": "language_model.lm_head.weight",
    "idefics2": "model.text_model.layers.0.mlp.up_proj.weight",
    "fuyu": "language_model.model.layers.0.self_attn.query_key_value.weight",
}


def release(folder: Path, family: str) -> torch.nn.Module:
    torch.manual_seed(4)
    model = AutoModelForImageTextToText.from_config(CONFIGS[family]())
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_a_released_layout_is_imported_and_loads(family: str, tmp_path: Path, local_store: LocalStore) -> None:
    model = release(tmp_path / "released", family)
    names = load_file(tmp_path / "released" / "model.safetensors").keys()
    assert RELEASED[family] in names, sorted(names)
    check_import(model, family, tmp_path, local_store)


@pytest.mark.parametrize("family", others())
def test_weights_of_every_other_family_are_imported_and_load(
    family: str, tmp_path: Path, local_store: LocalStore
) -> None:
    """As transformers saves them, which is how these models are released."""
    model = family_case(family).model()
    model.save_pretrained(tmp_path / "released")
    check_import(model, family, tmp_path, local_store)


def check_import(model: torch.nn.Module, family: str, tmp_path: Path, local_store: LocalStore) -> None:
    """Import the folder `released`, twice. transformers then loads the weights of `model`."""
    manifest = import_model(local_store, str(tmp_path / "released"), family)
    assert check_files(local_store, manifest) == []
    assert import_model(local_store, (tmp_path / "released").as_uri(), family) == manifest
    folder = local_store.root / manifest.key
    loaded, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def imported(store: LocalStore, folder: Path, family: str = "llava-clip") -> Manifest:
    return import_model(store, str(folder), family)


def test_what_is_no_whole_model_is_refused_and_nothing_is_stored(tmp_path: Path, local_store: LocalStore) -> None:
    folder = tmp_path / "released"
    release(folder, "llava-clip")
    with pytest.raises(ConfigError, match="'blip' has no released layout"):
        imported(local_store, folder, "blip")
    with pytest.raises(InputError, match="llava-siglip is model_type llava with a siglip_vision_model"):
        imported(local_store, folder, "llava-siglip")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "multi_modal_projector.linear_1.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    with pytest.raises(InputError, match=r"has no model\.multi_modal_projector\.linear_1\.weight"):
        imported(local_store, folder)
    save_file(tensors | {name: torch.zeros(3, 3)}, path)
    with pytest.raises(
        InputError, match=r"linear_1\.weight has the shape \[3, 3\], but config.json implies \[16, 16\]"
    ):
        imported(local_store, folder)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(MantisError, match=r"model\.safetensors is not a complete safetensors file"):
        imported(local_store, folder)
    path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(InputError, match=r"weights in \*\.bin are pickles and are not read"):
        imported(local_store, folder)
    (folder / "config.json").write_text(json.dumps([]))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"config\.json is not a model's configuration"):
        imported(local_store, folder)
    assert list(local_store.list("models")) == []
