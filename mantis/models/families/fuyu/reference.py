"""Fuyu by FuyuProcessor, image by image, and the official Mantis rules."""

import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mantis.config.model_settings import ModelSettings
from mantis.models.conversation import IMAGE_MARK
from mantis.models.packed_batch import Pixels
from mantis.models.verification.reference_processor import FamilyReference, OfficialRules

RULES = OfficialRules(
    first="<s>",
    opening="You are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language.\n",
    user="USER: ",
    assistant="ASSISTANT: ",
    user_separator="<0x04>",
    assistant_separator="|ENDOFTEXT|",
    image="image {j}: <image>",
)


def read(processor: Any, text: str, images: list[Image.Image], settings: ModelSettings) -> tuple[list[int], Tensor]:
    """FuyuProcessor takes one image per text: each image as it has it, put where MFuyuProcessor puts it."""
    names = ["|SPEAKER|", "|NEWLINE|", "|IMAGE|", "|ENDOFIMAGE|", "<s>"]
    tokenizer, edge, patches = processor.tokenizer, settings.image.patch_size, [torch.empty(0)]
    placeholder, newline, begin, end, bos = tokenizer.convert_tokens_to_ids(names)
    first, *rest = text.split(IMAGE_MARK)
    ids = list(tokenizer.encode(first, add_special_tokens=False))
    for image, part in zip(images, rest, strict=True):
        found = processor.image_processor([[image]], return_tensors="pt")
        rows, columns = (math.ceil(found[f"image_unpadded_{edges}"][0][0] / edge) for edges in ("heights", "widths"))
        values = found["images"][0][0][None, :, : rows * edge, : columns * edge]
        patches.append(processor.image_processor.patchify_image(values).flatten())
        row = [placeholder] * columns + [newline]
        ids += [begin, *row * rows, end, bos, *tokenizer.encode(part, add_special_tokens=False)]
    return ids, torch.cat(patches)


def one_row(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Tensor]:
    """The patches of all images as one row."""
    return {"pixel_values": pixels.values.unsqueeze(0)}


REFERENCE = FamilyReference(rules=RULES, read=read, model_inputs=one_row, vocabulary="space-everywhere")
