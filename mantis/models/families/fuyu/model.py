"""Fuyu: no vision tower; patches of 30 x 30 pixels go through one linear layer into a Persimmon. Mantis-Fuyu.

The model puts the patches of all images in at the placeholder tokens, in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from transformers import FuyuConfig, FuyuForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.models import attention
from mantis.models.families.fuyu.processing import (
    BEGIN_ANSWER,
    BEGIN_IMAGE,
    BEGIN_TEXT,
    END_IMAGE,
    END_OF_TEXT,
    NEWLINE,
    PLACEHOLDER,
    FuyuProcessor,
)
from mantis.models.family import Processor
from mantis.models.flop_groups import FlopGroup, Merged
from mantis.models.image_places import find_places_unchecked
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tokenization import token_id
from mantis.models.weights.whole_model import WholeModel, text_shape

MAX_POSITIONS = 16_384


@dataclass(frozen=True, kw_only=True)
class Fuyu(WholeModel):
    """See Family."""

    name: str = "fuyu"
    model: ClassVar[type[PreTrainedModel]] = FuyuForCausalLM
    template: str = "fuyu"

    def special_tokens(self) -> list[str]:
        return [BEGIN_TEXT, END_OF_TEXT, PLACEHOLDER, NEWLINE, BEGIN_IMAGE, END_IMAGE, BEGIN_ANSWER]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> FuyuProcessor:
        return FuyuProcessor(tokenizer, settings)

    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        image = processor.settings.image
        return {
            "patch_size": (config.patch_size, image.patch_size),
            "image_token_id": (config.image_token_id, token_id(processor.tokenizer, PLACEHOLDER)),
        }

    def config(self, processor: Processor, shape: FromScratch) -> FuyuConfig:
        image = processor.settings.image
        text = {
            "model_type": "persimmon",
            **text_shape(processor, shape, positions=MAX_POSITIONS),
            "qk_layernorm": True,
        }
        return FuyuConfig(
            text_config=text,
            image_size=image.size,
            patch_size=image.patch_size,
            image_token_id=token_id(processor.tokenizer, PLACEHOLDER),
            initializer_range=shape.text_width**-0.5,
        )

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        return {"*vision_embed_tokens.weight": FlopGroup.PIXELS}

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS})
        find_places_unchecked(model.model)

    def for_generation(self, model: PreTrainedModel) -> None:
        pass

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        if not shown:
            return {}
        return {"pixel_values": pixels.pick(shown).values.unsqueeze(0).to(model.device, model.dtype)}

    def parameter_group(self, parameter: str) -> Part:
        return "projector" if "vision_embed_tokens" in parameter.split(".") else "text"

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        pixel_values, dummy = batch.pixel_values, []
        if not len(batch.image_grid):
            config = getattr(model, "module", model).config
            pixel_values, dummy = pixel_values.new_zeros(1, pixel_values.shape[1]), [config.image_token_id]
        row = row_of(batch, dummy=dummy)
        return packed_logits(
            model,
            batch,
            row,
            pixel_values=pixel_values.unsqueeze(0),
        )
