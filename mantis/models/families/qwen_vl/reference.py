"""Qwen-VL by its own processors and chat templates."""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mantis.config.model_settings import ModelSettings
from mantis.models.packed_batch import Pixels
from mantis.models.verification.reference_processor import CHAT_ML, CHAT_ML_OPENING, FamilyReference

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
# chat_template of Qwen2.5-VL-7B-Instruct (chat_template.json), and of Qwen3-VL-8B-Instruct, which has no system text.
QWEN2_5_RULES = replace(CHAT_ML, opening=CHAT_ML_OPENING, image=IMAGE, system=True)
QWEN3_RULES = replace(CHAT_ML, image=IMAGE)


def read(processor: Any, text: str, images: list[Image.Image], settings: ModelSettings) -> tuple[list[int], Tensor]:
    """The processor as it is. Of the two equal frames of an image, one stays."""
    edge = settings.image.patch_size
    found = processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
    values = found["pixel_values"].view(-1, 3, 2, edge * edge)[:, :, 0] if images else torch.empty(0)
    return found["input_ids"][0].tolist(), values


def framed_images(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Tensor]:
    """Images as transformers takes them: two equal frames, a grid of three numbers, and the kind of every token."""
    edge = model.config.vision_config.patch_size
    one = pixels.values.view(-1, 3, 1, edge * edge)
    frames = torch.ones(len(pixels.image_grid), 1, dtype=torch.int64)
    return {
        "pixel_values": torch.cat([one, one], dim=2).flatten(1),
        "image_grid_thw": torch.cat([frames, pixels.image_grid], dim=1),
        "mm_token_type_ids": (input_ids == model.config.image_token_id).long(),
    }


QWEN2_5_REFERENCE = FamilyReference(rules=QWEN2_5_RULES, read=read, model_inputs=framed_images)
QWEN3_REFERENCE = FamilyReference(rules=QWEN3_RULES, read=read, model_inputs=framed_images)
