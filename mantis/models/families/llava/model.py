"""The LLaVA-style family: a CLIP or SigLIP tower, a 2-layer GELU MLP, a LLaMA. Mantis-CLIP and Mantis-SigLIP."""

from collections.abc import Callable, Sequence
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

from mantis.config.recipe import FromScratch, ModelSettings, Part
from mantis.images.preprocessing import Normalization, normalize, resize_and_crop, resize_square
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK, ImageSize
from mantis.models.packed_batch import PackedBatch, Pixels, row_of
from mantis.models.processing.chat_templates import jinja_template, load_chat_template
from mantis.models.processing.tokenization import TextEncoder, token_id
from mantis.models.weights import loading

# Of LLaMA-3's vocabulary; `<Image>` and `</Image>` of the prompt are plain text there.
LLAMA3_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
MAX_POSITIONS = 8192
ANY = ImageSize(width=1, height=1)  # every image becomes a square of the same size
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
class Llava(TextEncoder):
    """See mantis/models/family.py, which says what each of these functions is for."""

    name: str
    tower: Tower
    prompt: str = "llama3"

    def special_tokens(self) -> list[str]:
        return [*LLAMA3_TOKENS, IMAGE_MARK]

    def image_tokens(self, size: ImageSize, settings: ModelSettings) -> int:
        positions = self.image_patches(size, settings) + self.tower.class_positions
        return positions - (self._strategy(settings) == "default")

    def _strategy(self, settings: ModelSettings) -> str:
        return settings.image.feature_select or self.tower.strategy

    def image_patches(self, size: ImageSize, settings: ModelSettings) -> int:
        return (settings.image.size // settings.image.patch_size) ** 2

    def image_ids(self, size: ImageSize, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> list[int]:
        return [token_id(tokenizer, self.mark)] * self.image_tokens(size, settings)

    def preprocess(self, images: Sequence[bytes], settings: ModelSettings) -> Pixels:
        image = settings.image
        pixels = self.tower.resize(images, image.size)
        image_grid = torch.full((len(images), 2), image.size // image.patch_size, dtype=torch.int64)
        return Pixels(values=normalize(pixels, self.tower.normalization), image_grid=image_grid)

    def build(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, *, seed: int) -> PreTrainedModel:
        if shape := settings.scratch_shape:
            model = self._build_from_scratch(tokenizer, settings, shape, seed)
        else:
            model = self._load(tokenizer, settings, seed)
        if settings.projector:
            loading.load_projector(model, loading.model_folder(settings.projector))
        self.for_packing(model)
        model.generation_config.eos_token_id = self.end_of_answer(tokenizer, settings)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model.float().train()

    def _build_from_scratch(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch, seed: int
    ) -> LlavaForConditionalGeneration:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlavaForConditionalGeneration(self._config(tokenizer, settings, shape))
            positions = model.model.vision_tower.embeddings.position_embedding.weight
            torch.nn.init.normal_(positions, std=shape.vision_position_std)
        return model

    def _load(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, seed: int
    ) -> LlavaForConditionalGeneration:
        folder = loading.model_folder(settings.base)
        model: LlavaForConditionalGeneration
        if settings.vision:
            config = {
                "image_token_index": token_id(tokenizer, self.mark),
                "image_seq_length": self.image_tokens(ANY, settings),
                "projector_hidden_act": "gelu",
                "vision_feature_layer": settings.image.feature_layer,
                "vision_feature_select_strategy": self._strategy(settings),
            }
            tower = (self.tower.model, loading.model_folder(settings.vision))
            model = loading.compose(tower, folder, config, tokens=len(tokenizer), seed=seed)
        else:
            model = loading.load_whole(LlavaForConditionalGeneration, folder)
        self._check_shape(model.config, tokenizer, settings)
        return model

    def _check_shape(self, config: LlavaConfig, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> None:
        vision, image = config.vision_config, settings.image
        loading.check_shape(
            settings,
            {
                "vision_config.model_type": (vision.model_type, self.tower.config.model_type),
                "vision_config.image_size": (vision.image_size, image.size),
                "vision_config.patch_size": (vision.patch_size, image.patch_size),
                "vision_feature_layer": (config.vision_feature_layer, image.feature_layer),
                "vision_feature_select_strategy": (
                    config.vision_feature_select_strategy,
                    self._strategy(settings),
                ),
                "image_token_index": (config.image_token_id, token_id(tokenizer, self.mark)),
            },
        )

    def _config(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch) -> LlavaConfig:
        image = settings.image
        vision = self.tower.config(
            image_size=image.size,
            patch_size=image.patch_size,
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
            image_token_index=token_id(tokenizer, self.mark),
            image_seq_length=self.image_tokens(ANY, settings),
            projector_hidden_act="gelu",
            vision_feature_layer=image.feature_layer,
            vision_feature_select_strategy=self._strategy(settings),
        )

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS, "vision_config": "sdpa"})

    def for_generation(self, model: PreTrainedModel) -> None:
        pass

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        if not shown:  # the names must be absent: `generate` encodes whatever bears them, even None
            return {}
        values = pixels.values.to(model.device, model.dtype)
        if len(shown) == len(values):
            return {"pixel_values": values}
        encoded = model.base_model.get_image_features(pixel_values=values, return_dict=True)
        encoded.pooler_output = [encoded.pooler_output[place] for place in shown]
        return {"mm_encoder_outputs": {"image": encoded}}

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        pixel_values, dummy = batch.pixel_values, []
        if not len(batch.image_grid):
            config = getattr(model, "module", model).config
            edge = config.vision_config.image_size
            pixel_values, dummy = (
                pixel_values.new_zeros(1, 3, edge, edge),
                [config.image_token_id] * config.image_seq_length,
            )
        row = row_of(batch, dummy=dummy)
        output = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            pixel_values=pixel_values,
            attention_mask=None,  # a mask, even of ones, or a cache makes transformers attend across samples
            use_cache=False,
            logits_to_keep=batch.target_positions,
            segments=row.segments,
        )
        logits: Tensor = output.logits[0]
        return logits

    def save_processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, folder: Path) -> None:
        processor = LlavaProcessor(
            image_processor=self.tower.processor(settings.image.size),
            tokenizer=tokenizer,
            patch_size=settings.image.patch_size,
            vision_feature_select_strategy=self._strategy(settings),
            num_additional_image_tokens=self.tower.class_positions,
            chat_template=jinja_template(load_chat_template(settings.prompt)),
        )
        processor.save_pretrained(folder)
