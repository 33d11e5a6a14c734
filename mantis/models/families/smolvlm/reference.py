"""SmolVLM by Idefics3Processor and its chat template."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import tiles_of
from mantis.models.packed_batch import Pixels
from mantis.models.verification.reference_processor import FamilyReference, OfficialRules, cut_tiles

# chat_template of SmolVLM-Instruct.
RULES = OfficialRules(
    first="<|im_start|>",
    opening="",
    user="User: ",
    user_image="User:",
    header="\nAssistant:",
    assistant=" ",
    user_separator="<end_of_utterance>",
    assistant_separator="<end_of_utterance>",
    after="\n",
)


def read(processor: Any, text: str, images: list[Image.Image], settings: ModelSettings) -> tuple[list[int], Tensor]:
    """The processor as it is, its tiles cut into patches."""
    found = processor(text=[text], images=[images] if images else None, add_special_tokens=False, return_tensors="pt")
    if not images:
        return found["input_ids"][0].tolist(), torch.empty(0)
    return found["input_ids"][0].tolist(), cut_tiles(found["pixel_values"][0], settings.image.patch_size)


def tiled_images(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Tensor]:
    """Images as transformers takes them: the tiles of one text."""
    vision = model.config.vision_config
    width = vision.image_size // vision.patch_size
    return {"pixel_values": tiles_of(pixels.values, vision.patch_size, width).unsqueeze(0)}


REFERENCE = FamilyReference(rules=RULES, read=read, model_inputs=tiled_images)
