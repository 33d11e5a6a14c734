"""Flamingo by IdeficsProcessor and the official Mantis rules."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mantis.config.model_settings import ModelSettings
from mantis.models.families.flamingo.model import Flamingo
from mantis.models.packed_batch import Pixels
from mantis.models.verification.reference_processor import FamilyReference, OfficialRules

RULES = OfficialRules(
    first="<s>",
    opening="",
    user="User:",
    assistant="\nAssistant:",
    user_separator="<|endofchunk|>",
    assistant_separator="<|endofchunk|>",
    after="\n",
    image="<fake_token_around_image><image><fake_token_around_image>",
)


def read(processor: Any, text: str, images: list[Image.Image], _: ModelSettings) -> tuple[list[int], Tensor]:
    """IdeficsProcessor strips texts beside images; Idefics 1 joins the marks of neighbours."""
    around = "<fake_token_around_image>"
    ids = processor.tokenizer.encode(text.replace(2 * around, around), add_special_tokens=False)
    return ids, processor.image_processor(images, return_tensors="pt") if images else torch.empty(0)


def images_and_mask(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Tensor]:
    """The images of one sample, and which of them each token sees."""
    return Flamingo().generation_inputs(model, input_ids, pixels, range(len(pixels.image_grid)))


REFERENCE = FamilyReference(rules=RULES, read=read, model_inputs=images_and_mask, vocabulary="space-everywhere")
