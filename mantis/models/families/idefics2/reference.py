"""Idefics2 by the official text, transformers' image processor, and the official Mantis rules."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import patches_of
from mantis.models.conversation import IMAGE_MARK
from mantis.models.packed_batch import Pixels
from mantis.models.verification.reference_processor import FamilyReference, OfficialRules

AROUND = "<fake_token_around_image>"
RULES = OfficialRules(
    first="<s>",
    opening="",
    user="User:",
    assistant="\nAssistant:",
    user_separator="<end_of_utterance>",
    assistant_separator="<end_of_utterance>",
    after="\n",
)


def read(processor: Any, text: str, images: list[Image.Image], settings: ModelSettings) -> tuple[list[int], Tensor]:
    """The text as Idefics2Processor of transformers 4 had it: the one of 5 puts a space before a word behind an image.

    The image processor pads the images; here the padding is cut off again.
    """
    image = AROUND + IMAGE_MARK * settings.image.latents + AROUND
    expanded = text.replace(IMAGE_MARK, image).replace(AROUND + AROUND, AROUND)
    ids = processor.tokenizer(expanded, add_special_tokens=False)["input_ids"]
    found = processor.image_processor([images], return_tensors="pt") if images else {}
    edge, patches = settings.image.patch_size, [torch.empty(0)]
    for values, mask in zip(found["pixel_values"][0], found["pixel_attention_mask"][0], strict=True) if images else ():
        seen = seen_patches(mask, edge, partial=settings.image.partial_patches)
        rows, columns = int(seen.any(1).sum()), int(seen.any(0).sum())
        cut = patches_of(values[None, :, : rows * edge, : columns * edge], edge)
        patches.append(cut.flatten())
    return ids, torch.cat(patches)


def seen_patches(mask: Tensor, edge: int, *, partial: bool) -> Tensor:
    """Which patches of a padded image the model sees, [rows, columns] bool.

    `partial` as Idefics2Model of transformers 4.41: those with any pixel of the image. Else as the one of 5: those with
    no pixel of the padding.
    """
    pixels = mask.unfold(0, edge, edge).unfold(1, edge, edge).sum(dim=(-1, -2))
    return pixels > 0 if partial else pixels == edge * edge


def padded_images(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Tensor]:
    """Images as transformers pads them: zeros at the right and bottom, and a mask that leaves out the padding."""
    edge = model.config.vision_config.patch_size
    rows, columns = pixels.image_grid.max(0).values.tolist()
    values = torch.zeros(1, len(pixels.image_grid), 3, rows * edge, columns * edge)
    mask = torch.zeros(1, len(pixels.image_grid), rows * edge, columns * edge, dtype=torch.bool)
    parts = torch.split(pixels.values, pixels.image_grid.prod(1).tolist())
    for at, (part, (down, across)) in enumerate(zip(parts, pixels.image_grid.tolist(), strict=True)):
        image = part.view(down, across, 3, edge, edge).permute(2, 0, 3, 1, 4).reshape(3, down * edge, across * edge)
        values[0, at, :, : down * edge, : across * edge] = image
        mask[0, at, : down * edge, : across * edge] = True
    return {"pixel_values": values, "pixel_attention_mask": mask}


REFERENCE = FamilyReference(rules=RULES, read=read, model_inputs=padded_images, vocabulary="space-everywhere")
