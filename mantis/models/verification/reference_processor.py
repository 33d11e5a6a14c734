"""What a model should be given, by transformers' own processors and the official rules: what ours is held to.

The texts stand here a second time, as the official code writes them (mantis/train/conversation.py and each family's
processor), and the tokens come from whole texts instead of pieces, so that a slip in prompts.yaml or encoding.py shows.
Slow, and never used to train.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, PreTrainedTokenizerFast

from mantis.config.recipe import ModelSettings
from mantis.images.preprocessing import patches_of
from mantis.models.conversation import IMAGE_MARK, Conversation
from mantis.models.family import IGNORE, Family


@dataclass(frozen=True, kw_only=True)
class OfficialRules:
    """An official conversation: the token `first`, `opening`, then `{role}{content}{separator}` for every turn.

    `image` is what an image's mark becomes in the text, {i} and {j} counting from 1 and 0; `system` says that `opening`
    ends with a separator of its own.
    """

    first: str
    opening: str
    user: str
    assistant: str
    user_separator: str
    assistant_separator: str
    after: str = ""  # behind the assistant's separator, part of nobody's turn
    image: str = IMAGE_MARK
    system: bool = False


LLAMA3 = OfficialRules(
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
RULES = {
    "llava-clip": LLAMA3,
    "llava-siglip": LLAMA3,
    "idefics2": OfficialRules(
        first="<s>",
        opening="",
        user="User:",
        assistant="\nAssistant:",
        user_separator="<end_of_utterance>",
        assistant_separator="<end_of_utterance>",
        after="\n",
    ),
    "fuyu": OfficialRules(
        first="<s>",
        opening="You are a helpful language and vision assistant. You are able to understand the visual content "
        "that the user provides, and assist the user with a variety of tasks using natural language.\n",
        user="USER: ",
        assistant="ASSISTANT: ",
        user_separator="<0x04>",
        assistant_separator="|ENDOFTEXT|",
        image="image {j}: <image>",
    ),
    "flamingo": OfficialRules(
        first="<s>",
        opening="",
        user="User:",
        assistant="\nAssistant:",
        user_separator="<|endofchunk|>",
        assistant_separator="<|endofchunk|>",
        after="\n",
        image="<fake_token_around_image><image><fake_token_around_image>",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Token ids and labels of a whole conversation, and the pixels of its images."""

    text: str
    input_ids: list[int]
    labels: list[int]
    values: Tensor  # as Pixels.values


def processor_of(family: Family, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> Any:
    """The processor that transformers makes of what the family saves."""
    with tempfile.TemporaryDirectory(prefix="mantis-processor-") as folder:
        family.save_processor(tokenizer, settings, Path(folder))
        return AutoProcessor.from_pretrained(folder)


def expected(
    family: Family,
    conversation: Conversation,
    images: Sequence[Image.Image],
    processor: Any,
    settings: ModelSettings,
) -> Expected:
    """What the family's processor of transformers and the official rules make of it."""
    rules, tokenizer = RULES[family.name], processor.tokenizer
    text = text_of(conversation, rules)
    found, values = READERS[family.name](processor, text, list(images), settings)
    input_ids = [int(tokenizer.convert_tokens_to_ids(rules.first)), *found]
    # Those that an image becomes: what surrounds it in the text is text, which is learned where the assistant says it.
    positions = {token for size in conversation.sizes for token in family.image_ids(size, tokenizer, settings)}
    return Expected(
        text=text, input_ids=input_ids, labels=_labels(input_ids, rules, tokenizer, positions), values=values
    )


def text_of(conversation: Conversation, rules: OfficialRules) -> str:
    """The conversation's text with one mark for every image."""
    text, seen = rules.opening, 0
    for turn in conversation.turns:
        first, *rest = turn.content.split(IMAGE_MARK)
        content = first
        for part in rest:
            content += rules.image.format(i=seen + 1, j=seen) + part
            seen += 1
        if turn.role == "user":
            text += rules.user + content + rules.user_separator
        else:
            text += rules.assistant + content + rules.assistant_separator + rules.after
    return text


def _labels(
    ids: Sequence[int], rules: OfficialRules, tokenizer: PreTrainedTokenizerFast, positions: set[int]
) -> list[int]:
    """What follows each user's separator, through the assistant's; never an image's positions."""
    separators = tokenizer.convert_tokens_to_ids([rules.user_separator, rules.assistant_separator])
    labels, learning, waiting = [], False, rules.system
    for token in ids:
        labels.append(token if learning and token not in positions else IGNORE)
        if token in separators:
            learning, waiting = not learning and not waiting, False
    return labels


def _llava(processor: Any, text: str, images: list[Image.Image], _: ModelSettings) -> tuple[list[int], Tensor]:
    found = processor(text=[text], images=images or None, add_special_tokens=False, return_tensors="pt")
    return found["input_ids"][0].tolist(), found["pixel_values"] if images else torch.empty(0)


def _idefics2(
    processor: Any, text: str, images: list[Image.Image], settings: ModelSettings
) -> tuple[list[int], Tensor]:
    processor.image_seq_len = settings.image.latents
    found = processor(text=[text], images=[images] if images else None, add_special_tokens=False, return_tensors="pt")
    edge, patches = settings.image.patch_size, [torch.empty(0)]
    for values, mask in zip(found["pixel_values"][0], found["pixel_attention_mask"][0], strict=True) if images else ():
        rows, columns = int(mask.any(1).sum()) // edge, int(mask.any(0).sum()) // edge
        cut = patches_of(values[None, :, : rows * edge, : columns * edge], edge)
        patches.append(cut.flatten())
    return found["input_ids"][0].tolist(), torch.cat(patches)


def _fuyu(processor: Any, text: str, images: list[Image.Image], settings: ModelSettings) -> tuple[list[int], Tensor]:
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


def _flamingo(processor: Any, text: str, images: list[Image.Image], _: ModelSettings) -> tuple[list[int], Tensor]:
    """IdeficsProcessor strips texts beside images; Idefics 1 joins the marks of neighbours."""
    around = "<fake_token_around_image>"
    ids = processor.tokenizer.encode(text.replace(2 * around, around), add_special_tokens=False)
    return ids, processor.image_processor(images, return_tensors="pt") if images else torch.empty(0)


READERS: dict[str, Callable[..., tuple[list[int], Tensor]]] = {
    "llava-clip": _llava,
    "llava-siglip": _llava,
    "idefics2": _idefics2,
    "fuyu": _fuyu,
    "flamingo": _flamingo,
}
