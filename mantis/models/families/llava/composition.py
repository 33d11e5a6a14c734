"""LLaVA from parts: a vision tower, a language model, and a projector that is new or comes from stage 1."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from mantis.models.weights import loading

# A tower's checkpoint holds the text half of CLIP or SigLIP too, and SigLIP's pooling head, which features do not use.
NOT_THE_TOWER = (
    "text_model.",
    "text_projection.",
    "visual_projection.",
    "logit_scale",
    "logit_bias",
    "vision_model.head.",
    "head.",
)
PROJECTOR = "multi_modal_projector."


def compose(
    tower: tuple[type[PreTrainedModel], Path],
    text: tuple[type[PreTrainedModel], Path],
    config: dict[str, Any],
    *,
    tokens: int,
    seed: int,
) -> LlavaForConditionalGeneration:
    """A LLaVA of a vision tower and a language model (class and folder), and a new projector drawn by `seed`.

    `config` is what LlavaConfig needs beside the two. The vocabulary grows to `tokens`. Projector and added embeddings
    are normal with the language model's initializer_range and zero bias. So the official stage 1 draws them: its
    transformers had no mean resizing (train_mllava.py, do_pretrain).

    Raises:
        InputError: a tensor is missing or of another shape.
        ConfigError: the tokenizer has fewer tokens than the language model's embedding.
    """
    kind, folder = tower
    vision = loading.load_whole(kind, folder, ignored=NOT_THE_TOWER, config=_vision_config(folder))
    language = loading.load_whole(*text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loading.grow(language, tokens)
        whole = LlavaConfig(vision_config=vision.config, text_config=language.config, **config)
        projector = LlavaMultiModalProjector(whole)
        for layer in (projector.linear_1, projector.linear_2):
            nn.init.normal_(layer.weight, std=language.config.initializer_range)
            nn.init.zeros_(layer.bias)
    with torch.device("meta"):  # a frame for the parts: no memory, no random numbers
        model = LlavaForConditionalGeneration(whole)
    model.model.vision_tower = vision
    model.model.language_model = language.model
    model.model.multi_modal_projector = projector
    model.lm_head = language.lm_head
    return model


def _vision_config(folder: Path) -> Any:
    """The tower's part of a CLIP or SigLIP configuration, or all of a tower's own; without the pooling head."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    vision = getattr(config, "vision_config", config)
    if vision.model_type.startswith("siglip"):
        vision.vision_use_head = False
    return vision


def load_projector(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Put the projector of the LLaVA checkpoint in `folder` (the result of stage 1) into `model`.

    Raises:
        InputError: a tensor of it is missing, left over or of another shape.
    """
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if PROJECTOR in name]  # noqa: SIM118 (no mapping)
            found |= {name.partition(PROJECTOR)[2]: tensors.get_tensor(name) for name in names}
    projector = model.model.multi_modal_projector
    wanted = projector.state_dict()
    both = found.keys() & wanted.keys()
    wrong = [(name, found[name].shape, wanted[name].shape) for name in both if found[name].shape != wanted[name].shape]
    loading.check_tensors(folder, "projector", wanted.keys() - found.keys(), found.keys() - wanted.keys(), wrong)
    projector.load_state_dict({name: tensor.float() for name, tensor in found.items()})
