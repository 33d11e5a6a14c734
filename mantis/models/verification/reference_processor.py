"""Tokens, labels and pixels by transformers' own processors and the official rules, which ours have to equal.

A family's reference.py writes its texts a second time, as the official code does (mantis/train/conversation.py and each
family's processor there). The tokens come from whole texts instead of pieces, so a slip in a chat template or in
tokenization.py shows. Slow, and never used to train.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from transformers import AutoProcessor, PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import ModelSettings
from mantis.errors import InputError
from mantis.models.conversation import IMAGE_MARK, Conversation
from mantis.models.family import IGNORE, Processor
from mantis.models.packed_batch import Pixels

# How a tokenizer marks spaces: in bytes, as GPT-2's does; or as a letter of its own, which also begins every stretch of
# text between special tokens, as LLaMA's and Mistral's do.
Vocabulary = Literal["bytes", "space-everywhere"]


@dataclass(frozen=True, kw_only=True)
class OfficialRules:
    """An official conversation: the token `first`, `opening`, then `{role}{content}{separator}` for every turn.

    `image` is the text for an image's mark; {i} counts images from 1 and {j} from 0. `system` says that `opening` ends
    with a separator of its own.
    """

    first: str  # empty: none
    opening: str
    user: str
    assistant: str
    user_separator: str
    assistant_separator: str
    user_image: str = ""  # in place of `user` before an image, if they differ
    header: str = ""  # before `assistant`, and never learned
    after: str = ""  # behind the assistant's separator, part of nobody's turn
    image: str = IMAGE_MARK
    system: bool = False


# ChatML, the conversation of the Qwen models. A family adds its opening and its images.
CHAT_ML = OfficialRules(
    first="",
    opening="",
    user="<|im_start|>user\n",
    header="\n<|im_start|>assistant\n",
    assistant="",
    user_separator="<|im_end|>",
    assistant_separator="<|im_end|>",
    after="\n",
)
CHAT_ML_OPENING = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def cut_tiles(tiles: Tensor, edge: int) -> Tensor:
    """Cut transformers' tiles [N, 3, H, W] into patches [N, H / edge, W / edge, 3, edge, edge]; a rest is left out."""
    cut = tiles.unfold(2, edge, edge).unfold(3, edge, edge)
    return cut.permute(0, 2, 3, 1, 4, 5).contiguous()


def stacked_pixels(model: PreTrainedModel, input_ids: Tensor, pixels: Pixels) -> dict[str, Any]:
    """The images of one sample as most of transformers' classes take them."""
    return {"pixel_values": pixels.values}


@dataclass(frozen=True, kw_only=True)
class FamilyReference:
    """A family by transformers' own classes and the official rules. Its folder's reference.py sets one."""

    rules: OfficialRules
    # (transformers' processor, text with one mark per image, images, settings) -> token ids without `rules.first`, and
    # pixel values in the form of Pixels.values, flattened or not
    read: Callable[[Any, str, list[Image.Image], ModelSettings], tuple[list[int], Tensor]]
    # (model, input_ids [1, T], pixels of its images) -> the keyword arguments for images of transformers' own class
    model_inputs: Callable[[PreTrainedModel, Tensor, Pixels], dict[str, Any]] = stacked_pixels
    vocabulary: Vocabulary = "bytes"  # how the model's own tokenizer cuts text


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Token ids and labels of a whole conversation, and the pixels of its images."""

    text: str
    input_ids: list[int]
    labels: list[int]
    values: Tensor  # as Pixels.values


def saved_processor(processor: Processor, tokenizer: PreTrainedTokenizerFast | None = None) -> Any:
    """The processor that transformers makes of what ours saves, with `tokenizer` in place of the saved one."""
    with tempfile.TemporaryDirectory(prefix="mantis-processor-") as folder:
        processor.save(Path(folder))
        saved = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer is not None:
        saved.tokenizer = tokenizer
    return saved


def official_tokenizer(folder: Path, special_tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder` as the official code has it: tokenizer.json as transformers 4.41 reads it.

    Nothing of the project and nothing of transformers 5 reads the file. Tokens that it lacks come behind the others, as
    `add_tokens` of the official training scripts puts them.

    Raises:
        InputError: no readable tokenizer.json there.
    """
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises this class alone
        raise InputError(f"{folder} holds no readable tokenizer.json ({error}).", remedy="Copy it again.") from None
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    new = [AddedToken(token, special=True, normalized=False) for token in special_tokens if token not in added]
    backend.add_special_tokens(new)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def expected(
    reference: FamilyReference,
    processor: Processor,
    saved: Any,
    conversation: Conversation,
    images: Sequence[Image.Image],
) -> Expected:
    """The tokens, labels and pixels by transformers' processor `saved` and the official rules.

    Of `processor` only the tokens of images are used, and only to know which positions have no label.
    """
    rules, tokenizer = reference.rules, saved.tokenizer
    text = text_of(conversation, rules)
    shown = [enlarged(image, processor.settings.image.smallest) for image in images]
    found, values = reference.read(saved, text, shown, processor.settings)
    input_ids = [int(tokenizer.convert_tokens_to_ids(rules.first)), *found] if rules.first else found
    # Only those that an image becomes: what surrounds it is text, and learned where the assistant says it. So are line
    # breaks between the rows of an image.
    positions = {token for size in conversation.sizes for token in processor.image_ids(size)}
    positions &= set(tokenizer.get_added_vocab().values())
    return Expected(
        text=text, input_ids=input_ids, labels=_labels(input_ids, rules, tokenizer, positions), values=values
    )


def enlarged(image: Image.Image, smallest: int) -> Image.Image:
    """The image as the official data set class enlarges one with an edge below `smallest` pixels."""
    if min(image.size) >= smallest:
        return image
    factor = max(smallest / image.size[0], smallest / image.size[1])
    return image.resize((int(image.size[0] * factor), int(image.size[1] * factor))).convert("RGB")


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
            user = rules.user_image if rules.user_image and turn.content.startswith(IMAGE_MARK) else rules.user
            text += user + content + rules.user_separator
        else:
            text += rules.header + rules.assistant + content + rules.assistant_separator + rules.after
    return text


def _labels(
    ids: Sequence[int], rules: OfficialRules, tokenizer: PreTrainedTokenizerFast, positions: set[int]
) -> list[int]:
    """What follows each user's separator and the header, through the assistant's; never an image's positions."""
    separators = tokenizer.convert_tokens_to_ids([rules.user_separator, rules.assistant_separator])
    header = tokenizer.encode(rules.header, add_special_tokens=False) if rules.header else []
    left: list[int] = []  # of the header
    labels, learning, waiting = [], False, rules.system
    for token in ids:
        in_header = left[:1] == [token]
        left = left[1:] if in_header else []
        labels.append(token if learning and not in_header and token not in positions else IGNORE)
        if token in separators:
            learning, waiting = not learning and not waiting, False
            left = header if learning else []
    return labels
