"""LLaVA by LlavaProcessor, with the official Mantis rules for LLaMA-3 or the chat template of Qwen1.5."""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mantis.config.model_settings import ModelSettings
from mantis.models.verification.reference_processor import CHAT_ML, CHAT_ML_OPENING, FamilyReference, OfficialRules

RULES = OfficialRules(
    first="<|begin_of_text|>",
    opening="<|start_header_id|>system<|end_header_id|>\n\n"
    "You are a pirate chatbot who always responds in pirate speak!<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n",
    assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
    user_separator="<|eot_id|>",
    assistant_separator="<|eot_id|>",
    image="(image {i}: <Image><image></Image>)",
    system=True,
)
# conv_templates["qwen_1_5"] of LLaVA-VL/LLaVA-NeXT, and chat_template in tokenizer_config.json of Qwen1.5-7B-Chat.
QWEN2_RULES = replace(CHAT_ML, opening=CHAT_ML_OPENING, system=True)


def read(processor: Any, text: str, images: list[Image.Image], _: ModelSettings) -> tuple[list[int], Tensor]:
    """LlavaProcessor as it is."""
    """LlavaProcessor as it is."""
    found = processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
    return found["input_ids"][0].tolist(), found["pixel_values"] if images else torch.empty(0)


REFERENCE = FamilyReference(rules=RULES, read=read)
QWEN2_REFERENCE = FamilyReference(rules=QWEN2_RULES, read=read)
