"""The LLaVA-style families: a CLIP or SigLIP tower, a 2-layer GELU MLP, a language model.

Mantis-CLIP and Mantis-SigLIP have a LLaMA, LLaVA-Interleave has a Qwen2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK
from mantis.models.families.llava.composition import compose, load_projector
from mantis.models.families.llava.processing import (
    ANY_SIZE,
    LLAMA3,
    Language,
    LlavaProcessor,
    Tower,
    feature_select,
)
from mantis.models.family import Processor
from mantis.models.flop_groups import TOWER_GROUPS, FlopGroup, Merged
from mantis.models.image_places import find_places_unchecked
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tokenization import token_id
from mantis.models.weights import loading
from mantis.models.weights.whole_model import text_shape, tower_shape

PARTS: dict[str, Part] = {"vision_tower": "vision", "multi_modal_projector": "projector"}


@dataclass(frozen=True, kw_only=True)
class Llava:
    """See Family."""

    name: str
    tower: Tower
    language: Language = LLAMA3

    @property
    def template(self) -> str:
        return self.language.template

    def special_tokens(self) -> list[str]:
        return [*self.language.special_tokens, IMAGE_MARK]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> LlavaProcessor:
        return LlavaProcessor(tokenizer, settings, self.tower)

    def build(self, processor: Processor, *, seed: int) -> PreTrainedModel:
        settings = processor.settings
        if shape := settings.scratch_shape:
            model = self._build_from_scratch(processor, shape, seed)
        else:
            model = self._load(processor, seed)
        if settings.projector:
            load_projector(model, loading.model_folder(settings.projector))
        return loading.ready_to_train(self, model, processor)

    def _build_from_scratch(self, processor: Processor, shape: FromScratch, seed: int) -> LlavaForConditionalGeneration:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlavaForConditionalGeneration(self._config(processor, shape))
            positions = model.model.vision_tower.embeddings.position_embedding.weight
            torch.nn.init.normal_(positions, std=shape.vision_position_std)
        return model

    def _load(self, processor: Processor, seed: int) -> LlavaForConditionalGeneration:
        settings = processor.settings
        folder = loading.model_folder(settings.base)
        model: LlavaForConditionalGeneration
        if settings.vision:
            config = {
                "image_token_index": token_id(processor.tokenizer, IMAGE_MARK),
                "image_seq_length": processor.image_tokens(ANY_SIZE),
                "projector_hidden_act": "gelu",
                "vision_feature_layer": settings.image.feature_layer,
                "vision_feature_select_strategy": feature_select(self.tower, processor.settings),
            }
            tower = (self.tower.model, loading.model_folder(settings.vision))
            language = (self.language.model, folder)
            model = compose(tower, language, config, tokens=len(processor.tokenizer), seed=seed)
        else:
            model = loading.load_whole(LlavaForConditionalGeneration, folder)
            loading.add_missing_rows(model, processor, seed=seed)
        self._check_shape(model.config, processor)
        return model

    def _check_shape(self, config: LlavaConfig, processor: Processor) -> None:
        vision, image = config.vision_config, processor.settings.image
        loading.check_shape(
            processor.settings,
            {
                "vision_config.model_type": (vision.model_type, self.tower.config.model_type),
                "text_config.model_type": (config.text_config.model_type, self.language.config.model_type),
                "vision_config.image_size": (vision.image_size, image.size),
                "vision_config.patch_size": (vision.patch_size, image.patch_size),
                "vision_feature_layer": (config.vision_feature_layer, image.feature_layer),
                "vision_feature_select_strategy": (
                    config.vision_feature_select_strategy,
                    feature_select(self.tower, processor.settings),
                ),
                "image_token_index": (config.image_token_id, token_id(processor.tokenizer, IMAGE_MARK)),
            },
        )

    def _config(self, processor: Processor, shape: FromScratch) -> LlavaConfig:
        image = processor.settings.image
        vision = self.tower.config(
            **tower_shape(processor, shape),
            **self.tower.extra,
        )
        text = self.language.config(
            **text_shape(processor, shape, positions=self.language.max_positions),
            num_key_value_heads=shape.text_heads,
        )
        return LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=token_id(processor.tokenizer, IMAGE_MARK),
            image_seq_length=processor.image_tokens(ANY_SIZE),
            projector_hidden_act="gelu",
            vision_feature_layer=image.feature_layer,
            vision_feature_select_strategy=feature_select(self.tower, processor.settings),
        )

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        return TOWER_GROUPS

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS, "vision_config": "sdpa"})
        find_places_unchecked(model.model)

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
        return packed_logits(
            model,
            batch,
            row,
            pixel_values=pixel_values,
        )
