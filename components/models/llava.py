"""The LLaVA-style family: a CLIP or SigLIP tower, a 2-layer GELU MLP, a LLaMA. Mantis-CLIP and Mantis-SigLIP."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from components.core.errors import ConfigError
from components.core.settings import ModelSettings
from components.models import attention, loading
from components.models.batch import PackedBatch
from components.models.conversation import IMAGE_MARK, Conversation, Size
from components.models.family import IGNORE, Encoding, Part
from components.models.images import Normalization, normalize, resize_and_crop, resize_square
from components.models.prompts import Piece, chat_template, profile, render, render_prompt

# Of LLaMA-3's vocabulary; `<Image>` and `</Image>` of the prompt are plain text there.
LLAMA3_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
MAX_POSITIONS = 8192
PARTS: dict[str, Part] = {"vision_tower": "vision", "multi_modal_projector": "projector"}


@dataclass(frozen=True, kw_only=True)
class Tower:
    """What differs between a CLIP and a SigLIP tower."""

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    extra: dict[str, Any]
    strategy: Literal["default", "full"]  # transformers' names: `default` drops the first position, CLIP's CLS
    resize: Callable[[Sequence[bytes], int], Tensor]
    normalization: Normalization
    processor: Callable[[int], Any]  # of the image size
    class_positions: int  # positions of the tower beside the patches


CLIP = Tower(
    config=CLIPVisionConfig,
    model=CLIPVisionModel,
    extra={},
    strategy="default",
    resize=resize_and_crop,
    normalization=Normalization(mean=tuple(OPENAI_CLIP_MEAN), std=tuple(OPENAI_CLIP_STD)),
    processor=lambda size: CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}),
    class_positions=1,
)
SIGLIP = Tower(
    config=SiglipVisionConfig,
    model=SiglipVisionModel,
    extra={"vision_use_head": False},  # the pooling head has no part in the features
    strategy="full",
    resize=resize_square,
    normalization=Normalization(mean=tuple(IMAGENET_STANDARD_MEAN), std=tuple(IMAGENET_STANDARD_STD)),
    processor=lambda size: SiglipImageProcessor(size={"height": size, "width": size}),
    class_positions=0,
)


@dataclass(frozen=True, kw_only=True)
class Llava:
    """See components/models/family.py, which says what each of these functions is for."""

    name: str
    tower: Tower

    def special_tokens(self) -> list[str]:
        return [*LLAMA3_TOKENS, IMAGE_MARK]

    def image_tokens(self, size: Size, settings: ModelSettings) -> int:
        return self.image_patches(size, settings)

    def image_patches(self, size: Size, settings: ModelSettings) -> int:
        # Every image becomes a square of the same size.
        return (settings.tiny.image_size // settings.tiny.patch_size) ** 2

    def encode(
        self, conversation: Conversation, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> Encoding:
        return self.encode_batch([conversation], tokenizer, settings)[0]

    def encode_batch(
        self, conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> list[Encoding]:
        style = profile(settings.prompt)
        pieces = [render(conversation, style) for conversation in conversations]
        return self._encode(pieces, conversations, tokenizer, settings)

    def encode_prompt(
        self, conversation: Conversation, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings
    ) -> list[int]:
        pieces = render_prompt(conversation, profile(settings.prompt))
        return self._encode([pieces], [conversation], tokenizer, settings)[0].input_ids

    def _encode(
        self,
        texts: Sequence[list[Piece]],
        conversations: Sequence[Conversation],
        tokenizer: PreTrainedTokenizerFast,
        settings: ModelSettings,
    ) -> list[Encoding]:
        """Every conversation's pieces as tokens; piece by piece, since tokens must not cross from text to target."""
        image = image_token(tokenizer)
        # The tokenizer's own object: the wrapper around it costs several times the tokenizing of a short text.
        tokens = iter(
            tokenizer.backend_tokenizer.encode_batch_fast(
                [piece.text for pieces in texts for piece in pieces], add_special_tokens=False
            )
        )
        encodings: list[Encoding] = []
        for pieces, conversation in zip(texts, conversations, strict=True):
            counts = iter([self.image_tokens(size, settings) for size in conversation.sizes])
            input_ids: list[int] = []
            labels: list[int] = []
            for piece in pieces:
                ids = _expand(next(tokens).ids, image, counts)
                input_ids += ids
                labels += [token if piece.target and token != image else IGNORE for token in ids]
            encodings.append(Encoding(input_ids=input_ids, labels=labels))
        return encodings

    def end_of_answer(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> int:
        return token_id(tokenizer, profile(settings.prompt).end)

    def preprocess(self, images: Sequence[bytes], settings: ModelSettings) -> Tensor:
        pixels = self.tower.resize(images, settings.tiny.image_size)
        return normalize(pixels, self.tower.normalization)

    def build(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, *, seed: int) -> PreTrainedModel:
        attention.register()
        if settings.base == "tiny":
            model = self._build_tiny(tokenizer, settings, seed)
        else:
            model = self._load(tokenizer, settings, seed)
        if settings.projector:
            loading.load_projector(model, loading.model_folder(settings.projector))
        model.set_attn_implementation({"text_config": attention.SEGMENTS, "vision_config": "sdpa"})
        model.generation_config.eos_token_id = self.end_of_answer(tokenizer, settings)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model.float().train()

    def _build_tiny(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, seed: int
    ) -> LlavaForConditionalGeneration:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlavaForConditionalGeneration(self._config(tokenizer, settings))
            positions = model.model.vision_tower.embeddings.position_embedding.weight
            torch.nn.init.normal_(positions, std=settings.tiny.vision_position_std)
        return model

    def _load(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, seed: int
    ) -> LlavaForConditionalGeneration:
        folder = loading.model_folder(settings.base)
        model: LlavaForConditionalGeneration
        if settings.vision:
            config = {
                "image_token_index": image_token(tokenizer),
                "image_seq_length": (settings.tiny.image_size // settings.tiny.patch_size) ** 2,
                "projector_hidden_act": "gelu",
                "vision_feature_layer": settings.tiny.vision_feature_layer,
                "vision_feature_select_strategy": self.tower.strategy,
            }
            tower = (self.tower.model, loading.model_folder(settings.vision))
            model = loading.compose(tower, folder, config, tokens=len(tokenizer), seed=seed)
        else:
            model = loading.load_whole(LlavaForConditionalGeneration, folder)
        self._check_shape(model.config, tokenizer, settings)
        return model

    def _check_shape(self, config: LlavaConfig, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> None:
        """Data preparation counts tokens by the settings, so the weights have to agree with them."""
        vision, shape = config.vision_config, settings.tiny
        expected = {
            "vision_config.model_type": (vision.model_type, self.tower.config.model_type),
            "vision_config.image_size": (vision.image_size, shape.image_size),
            "vision_config.patch_size": (vision.patch_size, shape.patch_size),
            "vision_feature_layer": (config.vision_feature_layer, shape.vision_feature_layer),
            "vision_feature_select_strategy": (config.vision_feature_select_strategy, self.tower.strategy),
            "image_token_index": (config.image_token_id, image_token(tokenizer)),
        }
        wrong = [f"{name} is {there!r}, not {asked!r}" for name, (there, asked) in expected.items() if there != asked]
        if wrong:
            raise ConfigError(
                f"model.base = {settings.base!r} is not what model.family and model.tiny say: {'; '.join(wrong)}.",
                remedy="Set model.family, model.tiny.image_size, patch_size and vision_feature_layer to the model's.",
            )

    def _config(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> LlavaConfig:
        shape = settings.tiny
        vision = self.tower.config(
            image_size=shape.image_size,
            patch_size=shape.patch_size,
            hidden_size=shape.vision_width,
            intermediate_size=4 * shape.vision_width,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_heads,
            **self.tower.extra,
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.text_width,
            intermediate_size=round(shape.text_mlp_ratio * shape.text_width),
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            max_position_embeddings=MAX_POSITIONS,
            # LLaMA's 0.02 is the inverse root of a width of 2,500; for narrow models it makes every signal faint.
            initializer_range=shape.text_width**-0.5,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=self.end_of_answer(tokenizer, settings),
        )
        return LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=image_token(tokenizer),
            image_seq_length=(shape.image_size // shape.patch_size) ** 2,
            projector_hidden_act="gelu",
            vision_feature_layer=shape.vision_feature_layer,
            vision_feature_select_strategy=self.tower.strategy,
        )

    def part_of(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        input_ids, position_ids, pixel_values = batch.input_ids, batch.position_ids, batch.pixel_values
        segments = batch.boundaries.diff().tolist()
        if pixel_values.shape[0] == 0:
            # A segment of its own, which no target sees: the tower runs and gets gradients of exactly zero. Under
            # ZeRO-3 every rank has to gather the tower's parameters in every micro-step, or all of them hang.
            config = getattr(model, "module", model).config
            count = config.image_seq_length
            edge = config.vision_config.image_size
            marks = torch.full((1, count), config.image_token_id, dtype=input_ids.dtype, device=input_ids.device)
            steps = torch.arange(count, dtype=position_ids.dtype, device=position_ids.device).unsqueeze(0)
            input_ids = torch.cat([input_ids, marks], dim=1)
            position_ids = torch.cat([position_ids, steps], dim=1)
            pixel_values = pixel_values.new_zeros(1, 3, edge, edge)
            segments = [*segments, count]
        output = model(
            input_ids=input_ids,
            position_ids=position_ids,
            pixel_values=pixel_values,
            attention_mask=None,  # a mask, even of ones, or a cache makes transformers attend across samples
            use_cache=False,
            logits_to_keep=batch.target_positions,
            segments=segments,
        )
        logits: Tensor = output.logits[0]
        return logits

    def save_processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, folder: Path) -> None:
        processor = LlavaProcessor(
            image_processor=self.tower.processor(settings.tiny.image_size),
            tokenizer=tokenizer,
            patch_size=settings.tiny.patch_size,
            vision_feature_select_strategy=self.tower.strategy,
            num_additional_image_tokens=self.tower.class_positions,
            chat_template=chat_template(profile(settings.prompt)),
        )
        processor.save_pretrained(folder)


def _expand(ids: list[int], image: int, counts: Iterator[int]) -> list[int]:
    """`ids` with every image token as often as the next of `counts` says."""
    if image not in ids:
        return ids
    expanded: list[int] = []
    for token in ids:
        expanded += [image] * next(counts) if token == image else [token]
    return expanded


def image_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """Id of `<image>`.

    Raises:
        ConfigError: the tokenizer was made for another family.
    """
    return token_id(tokenizer, IMAGE_MARK)


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Id of a token that has to be whole.

    Raises:
        ConfigError: the tokenizer does not know it.
    """
    found = tokenizer.backend_tokenizer.token_to_id(token)
    if found is None:
        raise ConfigError(
            f"The tokenizer has no token {token!r}.", remedy="Train it with the family's special_tokens()."
        )
    return int(found)
