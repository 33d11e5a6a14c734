"""InternVL: an InternViT over tiles, a projector of 2 x 2 patches, a Qwen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.images.preprocessing import tiles_of
from mantis.models import attention
from mantis.models.families.internvl.processing import (
    BEGIN,
    CONTEXT,
    END,
    MERGE,
    VIDEO,
    InternVlProcessor,
)
from mantis.models.family import Processor
from mantis.models.flop_groups import FlopGroup, Merged
from mantis.models.image_places import find_places_unchecked
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tiled_images import side
from mantis.models.processing.tokenization import token_id
from mantis.models.weights.whole_model import WholeModel, text_shape, tower_shape

MAX_POSITIONS = 40_960
PARTS: dict[str, Part] = {"vision_tower": "vision", "multi_modal_projector": "projector"}


@dataclass(frozen=True, kw_only=True)
class InternVl(WholeModel):
    """See Family."""

    name: str = "internvl"
    model: ClassVar[type[PreTrainedModel]] = InternVLForConditionalGeneration
    template: str = "internvl"

    def special_tokens(self) -> list[str]:
        return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", BEGIN, END, CONTEXT, VIDEO]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> InternVlProcessor:
        return InternVlProcessor(tokenizer, settings)

    def draw(self, model: Any, shape: FromScratch) -> None:
        positions = model.model.vision_tower.embeddings.position_embeddings
        torch.nn.init.normal_(positions, std=shape.vision_position_std)

    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        image = processor.settings.image
        return {
            "vision_config.image_size": (list(config.vision_config.image_size), [image.size] * 2),
            "vision_config.patch_size": (list(config.vision_config.patch_size), [image.patch_size] * 2),
            "downsample_ratio": (config.downsample_ratio, 1 / MERGE),
            "vision_feature_layer": (config.vision_feature_layer, image.feature_layer),
            "image_token_id": (config.image_token_id, token_id(processor.tokenizer, CONTEXT)),
        }

    def config(self, processor: Processor, shape: FromScratch) -> InternVLConfig:
        image = processor.settings.image
        vision = tower_shape(processor, shape) | {"attention_bias": True}
        text = {
            "model_type": "qwen3",
            **text_shape(processor, shape, positions=MAX_POSITIONS),
            "num_key_value_heads": shape.text_heads,
            "head_dim": shape.text_width // shape.text_heads,
        }
        return InternVLConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=token_id(processor.tokenizer, CONTEXT),
            image_seq_length=(side(processor.settings) // MERGE) ** 2,
            downsample_ratio=1 / MERGE,
            vision_feature_layer=image.feature_layer,
            tie_word_embeddings=False,
        )

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        return {
            "*vision_tower.*position_embeddings": FlopGroup.ADDED,
            "*vision_tower.*cls_token": FlopGroup.ADDED,
            "*vision_tower.*lambda_?": FlopGroup.ADDED,
            "*vision_tower.*patch_embeddings*": FlopGroup.PIXELS,
            "*multi_modal_projector*": Merged(patches=MERGE**2),
        }

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS, "vision_config": "sdpa"})
        find_places_unchecked(model.model)

    def for_generation(self, model: PreTrainedModel) -> None:
        pass

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        if not shown:
            return {}
        values = pixels.pick(shown).values.to(model.device, model.dtype)
        return {"pixel_values": _tiles(model, values)}

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        config = getattr(model, "module", model).config
        pixel_values, dummy = batch.pixel_values, []
        if not len(batch.image_grid):
            patches = config.image_seq_length * MERGE**2
            pixel_values = pixel_values.new_zeros(patches, pixel_values.shape[1])
            dummy = [config.image_token_id] * config.image_seq_length
        row = row_of(batch, dummy=dummy)
        return packed_logits(
            model,
            batch,
            row,
            pixel_values=_tiles(model, pixel_values),
        )


def _tiles(model: PreTrainedModel, values: Tensor) -> Tensor:
    vision = getattr(model, "module", model).config.vision_config
    return tiles_of(values, vision.patch_size[0], vision.image_size[0] // vision.patch_size[0])
