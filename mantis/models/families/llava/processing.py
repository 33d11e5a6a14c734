"""Inputs of LLaVA: squares of one size for a CLIP or SigLIP tower, an image token per feature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mantis.config.model_settings import ModelSettings
from mantis.images.preprocessing import Normalization, normalize, resize_and_crop, resize_square
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import Pixels
from mantis.models.processing.chat_templates import jinja_template
from mantis.models.processing.tokenization import TextProcessor, token_id

ANY_SIZE = ImageSize(width=1, height=1)  # every image becomes a square of the same size


@dataclass(frozen=True, kw_only=True)
class Tower:
    """What differs between a CLIP and a SigLIP tower."""

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    extra: dict[str, Any]
    strategy: Literal["default", "full"]  # transformers' names: `default` drops the first position, CLIP's CLS
    resize: Callable[[Sequence[bytes], int, int], Tensor]  # images, size, smallest edge
    normalization: Normalization
    processor: Callable[[int], Any]  # of the image size
    class_positions: int  # positions of the tower beside the patches


CLIP = Tower(
    config=CLIPVisionConfig,
    model=CLIPVisionModel,
    extra={},
    strategy="default",
    resize=lambda images, size, smallest: resize_and_crop(images, size, smallest=smallest),
    normalization=Normalization(mean=tuple(OPENAI_CLIP_MEAN), std=tuple(OPENAI_CLIP_STD)),
    processor=lambda size: CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
    class_positions=1,
)
SIGLIP = Tower(
    config=SiglipVisionConfig,
    model=SiglipVisionModel,
    extra={"vision_use_head": False},  # the pooling head has no part in the features
    strategy="full",
    resize=lambda images, size, smallest: resize_square(images, size, smallest=smallest),
    normalization=Normalization(mean=tuple(IMAGENET_STANDARD_MEAN), std=tuple(IMAGENET_STANDARD_STD)),
    processor=lambda size: SiglipImageProcessor(size={"height": size, "width": size}),
    class_positions=0,
)


@dataclass(frozen=True, kw_only=True)
class Language:
    """What differs between the language models."""

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    special_tokens: tuple[str, ...]  # beside the image's
    template: str  # that the published models were trained with
    max_positions: int


# `<Image>` and `</Image>` of the prompt are plain text in LLaMA-3's vocabulary.
LLAMA3 = Language(
    config=LlamaConfig,
    model=LlamaForCausalLM,
    special_tokens=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    template="llama3",
    max_positions=8192,
)
QWEN2 = Language(
    config=Qwen2Config,
    model=Qwen2ForCausalLM,
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    template="llava-qwen2",
    max_positions=32_768,
)


class LlavaProcessor(TextProcessor):
    """See Processor."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, tower: Tower) -> None:
        super().__init__(tokenizer, settings)
        self._tower = tower

    def image_tokens(self, size: ImageSize) -> int:
        positions = self.image_patches(size) + self._tower.class_positions
        return positions - (feature_select(self._tower, self.settings) == "default")

    def image_patches(self, size: ImageSize) -> int:
        return (self.settings.image.size // self.settings.image.patch_size) ** 2

    def image_ids(self, size: ImageSize) -> list[int]:
        return [token_id(self.tokenizer, self.image_token)] * self.image_tokens(size)

    def preprocess(self, images: Sequence[bytes]) -> Pixels:
        image = self.settings.image
        pixels = self._tower.resize(images, image.size, image.smallest)
        image_grid = torch.full((len(images), 2), image.size // image.patch_size, dtype=torch.int64)
        return Pixels(values=normalize(pixels, self._tower.normalization), image_grid=image_grid)

    def save(self, folder: Path) -> None:
        processor = transformers.LlavaProcessor(
            image_processor=self._tower.processor(self.settings.image.size),
            tokenizer=self.tokenizer,
            patch_size=self.settings.image.patch_size,
            vision_feature_select_strategy=feature_select(self._tower, self.settings),
            num_additional_image_tokens=self._tower.class_positions,
            chat_template=jinja_template(self.template),
        )
        processor.save_pretrained(folder)


def feature_select(tower: Tower, settings: ModelSettings) -> str:
    """vision_feature_select_strategy of transformers: the recipe's, else the tower's own."""
    return settings.image.feature_select or tower.strategy
