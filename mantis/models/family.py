"""What every model family offers, under the same names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.recipe import ModelSettings, Part
from mantis.models.conversation import Conversation, ImageSize
from mantis.models.packed_batch import PackedBatch, Pixels

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A conversation as tokens; both lists have the sample's length, image tokens expanded."""

    input_ids: list[int]
    labels: list[int]  # the token itself where it is a target, IGNORE elsewhere; not shifted


class Family(Protocol):
    """A model family. A new one is one module that offers these names, and one entry in models/registry.py."""

    @property
    def name(self) -> str:
        """As in the registry and in recipes."""
        ...

    @property
    def prompt(self) -> str:
        """The prompt profile that the published models of this family were trained with."""
        ...

    def special_tokens(self) -> list[str]:
        """Tokens that the tokenizer must hold whole, the image token among them."""
        ...

    def image_tokens(self, size: ImageSize, settings: ModelSettings) -> int:
        """Language model positions that an image of this size takes; nothing is decoded."""
        ...

    def image_ids(self, size: ImageSize, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> list[int]:
        """The tokens at those positions, `image_tokens` of them."""
        ...

    def image_patches(self, size: ImageSize, settings: ModelSettings) -> int:
        """Patches the vision tower computes for an image of this size."""
        ...

    def encode(
        self, conversation: Conversation, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> Encoding:
        """Tokens and labels of a whole conversation."""
        ...

    def encode_batch(
        self, conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> list[Encoding]:
        """`encode` of each, tokenized in one call, on several cores where TOKENIZERS_PARALLELISM does not forbid it."""
        ...

    def encode_prompt(
        self, conversation: Conversation, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> list[int]:
        """Tokens up to where the assistant's next answer begins; the last turn is the user's."""
        ...

    def end_of_answer(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> int:
        """The token that ends an assistant's turn."""
        ...

    def preprocess(self, images: Sequence[bytes], settings: ModelSettings) -> Pixels:
        """Encoded images as the vision part takes them; there may be none."""
        ...

    def build(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, *, seed: int) -> PreTrainedModel:
        """The model to train, fp32, on CPU, in training mode."""
        ...

    def for_packing(self, model: PreTrainedModel) -> None:
        """Make a model, however it was loaded, take packed batches: attention within segments, unpadded images."""
        ...

    def for_generation(self, model: PreTrainedModel) -> None:
        """Make a model, however it was loaded, take `generation_inputs`."""
        ...

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        """What `generate` is given of the images, for prompts [B, T] that are padded on the left.

        Of the images in `pixels`, which differ, `shown` says for each one in the order of the marks which it is.
        """
        ...

    def parameter_group(self, parameter: str) -> Part:
        """Which part of the model a parameter belongs to, by its name."""
        ...

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        """Logits [K, vocabulary] at the batch's target positions; without images the vision part runs on a dummy.

        `model` may be wrapped by an engine: it is only called, never looked into.
        """
        ...

    def save_processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, folder: Path) -> None:
        """Tokenizer, image processor and processor files, as transformers' AutoProcessor reads them."""
        ...
