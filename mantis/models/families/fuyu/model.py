"""Fuyu: no vision tower; patches of 30 x 30 pixels go through one linear layer into a Persimmon. Mantis-Fuyu.

The model puts the patches of all images in at the placeholder tokens, in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
from mantis.models.packed_batch import PackedBatch, Pixels, row_of
from mantis.models.processing.tokenization import token_id
from mantis.models.weights import loading

MAX_POSITIONS = 16_384


@dataclass(frozen=True, kw_only=True)
class Fuyu:
    """See Family."""

    name: str = "fuyu"
    template: str = "fuyu"

    def special_tokens(self) -> list[str]:
        return [BEGIN_TEXT, END_OF_TEXT, PLACEHOLDER, NEWLINE, BEGIN_IMAGE, END_IMAGE, BEGIN_ANSWER]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> FuyuProcessor:
        return FuyuProcessor(tokenizer, settings)

    def build(self, processor: Processor, *, seed: int) -> PreTrainedModel:
        settings = processor.settings
        if shape := settings.scratch_shape:
            model = self._build_from_scratch(processor, shape, seed)
        else:
            model = loading.load_whole(FuyuForCausalLM, loading.model_folder(settings.base))
            self._check_shape(model.config, processor)
            loading.add_missing_rows(model, processor, seed=seed)
        return loading.ready_to_train(self, model, processor)

    def _build_from_scratch(self, processor: Processor, shape: FromScratch, seed: int) -> FuyuForCausalLM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = FuyuForCausalLM(self._config(processor, shape))
        return model

    def _check_shape(self, config: Any, processor: Processor) -> None:
        image = processor.settings.image
        expected = {
            "patch_size": (config.patch_size, image.patch_size),
            "image_token_id": (config.image_token_id, token_id(processor.tokenizer, PLACEHOLDER)),
        }
        loading.check_shape(processor.settings, expected)

    def _config(self, processor: Processor, shape: FromScratch) -> FuyuConfig:
        image = processor.settings.image
        text = {
            "model_type": "persimmon",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": round(shape.text_mlp_ratio * shape.text_width),
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "initializer_range": shape.text_width**-0.5,  # as in families/llava/model.py
            "qk_layernorm": True,
            "pad_token_id": processor.tokenizer.pad_token_id,
            "bos_token_id": processor.tokenizer.bos_token_id,
            "eos_token_id": processor.end_of_answer,
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
        output = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            pixel_values=pixel_values.unsqueeze(0),
            attention_mask=None,  # as in families/llava/model.py
            use_cache=False,
            logits_to_keep=batch.target_positions,
            segments=row.segments,
        )
        logits: Tensor = output.logits[0]
        return logits
