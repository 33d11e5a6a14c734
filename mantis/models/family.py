"""The contract of a model family: `Family` handles the model, `Processor` makes its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import ModelSettings
from mantis.config.training_settings import Part
from mantis.models.conversation import Conversation, ImageSize
from mantis.models.flop_groups import FlopGroup, Merged
from mantis.models.packed_batch import PackedBatch, Pixels

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A conversation as tokens; both lists have the sample's length, image tokens expanded."""

    input_ids: list[int]
    labels: list[int]  # the token itself where it is a target, IGNORE elsewhere; not shifted


class Processor(Protocol):
    """Makes a model's inputs from conversations and encoded images, for one tokenizer and one set of settings.

    Data preparation, training and evaluation all count and encode with it. It needs no weights.
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that it was made for."""
        ...

    @property
    def settings(self) -> ModelSettings:
        """The settings that it was made for."""
        ...

    @property
    def end_of_answer(self) -> int:
        """Id of the token that ends an assistant's turn."""
        ...

    @property
    def image_token(self) -> str:
        """The token that stands for an image in the text. The text of a conversation must not hold it otherwise."""
        ...

    def encode(self, conversation: Conversation) -> Encoding:
        """Tokens and labels of a whole conversation.

        Raises:
            ImageTokenError: its text holds `image_token` beside its marks.
        """
        ...

    def encode_batch(self, conversations: Sequence[Conversation]) -> list[Encoding]:
        """`encode` of each, tokenized in one call; on several cores unless TOKENIZERS_PARALLELISM forbids it."""
        ...

    def encode_prompt(self, conversation: Conversation) -> list[int]:
        """Tokens up to where the assistant's next answer begins; the last turn is the user's."""
        ...

    def image_tokens(self, size: ImageSize) -> int:
        """Positions of the language model that an image of this size takes; decodes nothing."""
        ...

    def image_ids(self, size: ImageSize) -> list[int]:
        """The `image_tokens` tokens at those positions."""
        ...

    def image_patches(self, size: ImageSize) -> int:
        """Patches that the vision part computes for an image of this size; decodes nothing."""
        ...

    @property
    def images_depend(self) -> bool:
        """Whether an image's patches depend on the other images of its sample."""
        ...

    def of_sample(self, sizes: Sequence[ImageSize]) -> "Processor":
        """The processor whose image_tokens and image_ids hold for the images of one sample.

        Only `model.image.max_pixels_per_sample` makes it another one.
        """
        ...

    def sample_patches(self, sizes: Sequence[ImageSize]) -> list[int]:
        """Patches of each image of a sample. Where `images_depend`, they differ from `image_patches`."""
        ...

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        """Decode and resize the N >= 0 encoded images (JPEG, PNG) of a sample for the vision part."""
        ...

    def save(self, folder: Path) -> None:
        """Write tokenizer, image processor and chat template as transformers' AutoProcessor reads them."""
        ...


class Family(Protocol):
    """A model family. docs/how-to/add-a-family.md shows how to write one."""

    @property
    def name(self) -> str:
        """As in recipes and in its FamilySpec."""
        ...

    @property
    def template(self) -> str:
        """Name of the chat template that the published models of this family were trained with."""
        ...

    def special_tokens(self) -> list[str]:
        """Tokens that a tokenizer must never split, the image token among them."""
        ...

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> Processor:
        """The processor for this tokenizer and these settings."""
        ...

    def build(self, processor: Processor, *, seed: int) -> PreTrainedModel:
        """The model to train, in fp32, on CPU, in training mode, ready for packed batches.

        Built from nothing where `processor.settings.base` is `scratch`, else loaded. `seed` draws all new weights; the
        caller's random state stays untouched.

        Raises:
            ConfigError: the weights have another shape than the settings say.
            InputError: weights are missing.
        """
        ...

    def parameter_group(self, parameter: str) -> Part:
        """The part of the model that a parameter belongs to, by its name. `training.train` names parts."""
        ...

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        """Patterns of parameter names whose FLOPs are not simply those of a matrix; the first match counts."""
        ...

    def for_packing(self, model: PreTrainedModel) -> None:
        """Prepare a loaded model for packed batches: attention within segments, images without padding."""
        ...

    def for_generation(self, model: PreTrainedModel) -> None:
        """Prepare a loaded model for `generation_inputs`."""
        ...

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        """Keyword arguments of `generate` that hold the images, for left-padded prompts `input_ids` [B, T].

        `pixels` holds each distinct image once. `shown[i]` is the index in `pixels` of the i-th image of the batch.
        """
        ...

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        """Logits [K, vocabulary] at the batch's K target positions.

        A batch without images runs the vision part on a dummy image: under ZeRO-3 every rank has to call the same
        modules. `model` may be wrapped by an engine, so only its `forward` may be called.
        """
        ...
