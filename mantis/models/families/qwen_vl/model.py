"""Qwen2.5-VL and Qwen3-VL: a tower for images of any size, a merger of 2 x 2 patches, a Qwen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.models import attention
from mantis.models.families.qwen_vl.processing import (
    FRAMES,
    IMAGE_PAD,
    MERGE,
    QWEN2_5,
    QWEN3,
    Preparation,
    QwenVlProcessor,
)
from mantis.models.families.qwen_vl.qwen_vision import (
    attend_at_once,
    deep_features,
    embed_at_once,
    find_image_places,
    windowed_features,
)
from mantis.models.families.qwen_vl.rotary_positions import padded_positions, rotary_positions
from mantis.models.family import Processor
from mantis.models.flop_groups import FlopGroup, Merged
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tokenization import token_id
from mantis.models.weights.whole_model import WholeModel, text_shape

VISION_START, VISION_END, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", VISION_START, VISION_END, "<|vision_pad|>"]
MAX_POSITIONS = 32_768
WINDOW = 4  # edge of an attention window in tokens, as in the published models
MERGERS = {"merger", "deepstack_merger_list"}


class QwenVl(WholeModel):
    """What both families have in common. See Family."""

    name: str
    template: str
    preparation: ClassVar[Preparation]
    features: ClassVar[Any]  # in place of get_image_features

    def special_tokens(self) -> list[str]:
        return [*TOKENS, IMAGE_PAD, VIDEO_PAD]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> QwenVlProcessor:
        return QwenVlProcessor(tokenizer, settings, self.preparation)

    def draw(self, model: Any, shape: FromScratch) -> None:
        if hasattr(model.model.visual, "pos_embed"):
            torch.nn.init.normal_(model.model.visual.pos_embed.weight, std=shape.vision_position_std)

    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        return {
            "vision_config.patch_size": (config.vision_config.patch_size, processor.settings.image.patch_size),
            "vision_config.spatial_merge_size": (config.vision_config.spatial_merge_size, MERGE),
            "image_token_id": (config.image_token_id, token_id(processor.tokenizer, IMAGE_PAD)),
        }

    def parameter_group(self, parameter: str) -> Part:
        names = parameter.split(".")
        if "visual" not in names:
            return "text"
        return "projector" if MERGERS & set(names) else "vision"

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        merged = Merged(patches=MERGE**2)
        return {
            "*visual.pos_embed*": FlopGroup.ADDED,
            "*visual.patch_embed*": FlopGroup.PIXELS,
            "*visual.merger*": merged,
            "*visual.deepstack_merger_list*": merged,
        }

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS})
        self.for_generation(model)
        find_image_places(model)

    def for_generation(self, model: PreTrainedModel) -> None:
        attend_at_once(model)
        embed_at_once(model)
        # The forward pass asks its model for the images' features by this name.
        model.model.get_image_features = partial(type(self).features, model.model)
        model.model.get_rope_index = partial(_rope_index, model.config.image_token_id)

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        if not shown:
            return {}
        picked = pixels.pick(shown)
        return {
            "pixel_values": picked.values.to(model.device, model.dtype),
            "image_grid_thw": pad(picked.image_grid, (1, 0), value=1),  # numbers, read on the host
            "mm_token_type_ids": (input_ids == model.config.image_token_id).long().to(model.device),
        }

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        config = getattr(model, "module", model).config
        pixel_values, image_grid, dummy = batch.pixel_values, batch.image_grid, []
        if not len(image_grid):
            pixel_values = pixel_values.new_zeros(MERGE**2, pixel_values.shape[1])
            image_grid, dummy = image_grid.new_full((1, 2), MERGE), [config.image_token_id]
        row = row_of(batch, dummy=dummy)
        places = rotary_positions(
            row.input_ids, row.position_ids, image_grid, image_token=config.image_token_id, merge=MERGE
        )
        row = replace(row, position_ids=places)
        return packed_logits(model, batch, row, pixel_values=pixel_values, image_grid_thw=image_grid)


@dataclass(frozen=True, kw_only=True)
class Qwen25Vl(QwenVl):
    """Qwen2.5-VL: most layers of the tower attend within windows."""

    name: str = "qwen2_5-vl"
    template: str = "qwen2_5-vl"
    preparation: ClassVar[Preparation] = QWEN2_5
    model: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration
    features: ClassVar[Any] = staticmethod(windowed_features)

    def config(self, processor: Processor, shape: FromScratch) -> PreTrainedConfig:
        vision = _vision(processor, shape) | {
            "window_size": WINDOW * MERGE * processor.settings.image.patch_size,
            "fullatt_block_indexes": [shape.vision_layers - 1],
        }
        half = shape.text_width // shape.text_heads // 2
        text = _text(processor, shape, section=[half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8])
        return Qwen2_5_VLConfig(vision_config=vision, text_config=text, **_tokens(processor))


@dataclass(frozen=True, kw_only=True)
class Qwen3Vl(QwenVl):
    """Qwen3-VL: features of the tower's earlier layers enter the first layers of the text model (DeepStack)."""

    name: str = "qwen3-vl"
    template: str = "qwen3-vl"
    preparation: ClassVar[Preparation] = QWEN3
    model: ClassVar[type[PreTrainedModel]] = Qwen3VLForConditionalGeneration
    features: ClassVar[Any] = staticmethod(deep_features)

    def config(self, processor: Processor, shape: FromScratch) -> PreTrainedConfig:
        image = processor.settings.image
        vision = _vision(processor, shape) | {
            "num_position_embeddings": max(2, image.size // image.patch_size) ** 2,
            "deepstack_visual_indexes": [0],
        }
        width = shape.text_width // shape.text_heads
        part = 5 * (width // 2) // 16
        text = _text(processor, shape, section=[width // 2 - 2 * part, part, part])
        text["rope_parameters"]["mrope_interleaved"] = True
        return Qwen3VLConfig(vision_config=vision, text_config=text | {"head_dim": width}, **_tokens(processor))


def _rope_index(
    image_token: int, input_ids: Tensor, *, image_grid_thw: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, Tensor]:
    """In place of get_rope_index of transformers, which reads the places of images from the GPU."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return padded_positions(input_ids, mask, image_grid_thw[:, 1:], image_token=image_token, merge=MERGE)


def _vision(processor: Processor, shape: FromScratch) -> dict[str, Any]:
    return {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_heads": shape.vision_heads,
        "patch_size": processor.settings.image.patch_size,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "out_hidden_size": shape.text_width,
        "initializer_range": shape.vision_width**-0.5,
    }


def _text(processor: Processor, shape: FromScratch, *, section: list[int]) -> dict[str, Any]:
    return {
        **text_shape(processor, shape, positions=MAX_POSITIONS),
        "num_key_value_heads": shape.text_heads,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section},
    }


def _tokens(processor: Processor) -> dict[str, int]:
    names = {"image": IMAGE_PAD, "video": VIDEO_PAD, "vision_start": VISION_START, "vision_end": VISION_END}
    return {f"{name}_token_id": token_id(processor.tokenizer, token) for name, token in names.items()}
