"""InternVL by its own processor and chat template."""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import tiles_of
from mantis.models.packed_batch import Pixels
from mantis.models.verification.reference_processor import CHAT_ML, FamilyReference, cut_tiles

# chat_template of InternVL3_5-8B-HF, and chat_template in convert_internvl_weights_to_hf.py of transformers.
RULES = replace(CHAT_ML, image="<IMG_CONTEXT>\n")


def read(processor: Any, text: str, images: list[Image.Image], settings: ModelSettings) -> tuple[list[int], Tensor]:
    """The processor as it is, its tiles cut into patches."""
    found = processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
    if not images:
        return found["input_ids"][0].tolist(), torch.empty(0)
    return found["input_ids"][0].tolist(), cut_tiles(found["pixel_values"], settings.image.patch_size)


def tiled_images(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Tensor]:
    """Images as transformers takes them: all tiles as a stack."""
    vision = model.config.vision_config
    edge = vision.patch_size[0]
    return {"pixel_values": tiles_of(pixels.values, edge, vision.image_size[0] // edge)}


REFERENCE = FamilyReference(rules=RULES, read=read, model_inputs=tiled_images)
