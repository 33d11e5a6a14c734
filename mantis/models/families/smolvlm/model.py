"""SmolVLM: a SigLIP tower over tiles, a projector of several patches at once, a LLaMA. An Idefics3 of transformers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.images.preprocessing import tiles_of
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK
from mantis.models.families.smolvlm.processing import AROUND, GLOBAL, MOST_EDGE, SmolVlmProcessor, tile_name
from mantis.models.family import Processor
from mantis.models.flop_groups import TOWER_GROUPS, FlopGroup, Merged
from mantis.models.image_places import merge_unchecked
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tiled_images import side
from mantis.models.processing.tokenization import token_id
from mantis.models.weights.whole_model import WholeModel, text_shape, tower_shape

END_OF_UTTERANCE = "<end_of_utterance>"
MAX_POSITIONS = 16_384
PARTS: dict[str, Part] = {"vision_model": "vision", "connector": "projector"}


@dataclass(frozen=True, kw_only=True)
class SmolVlm(WholeModel):
    """See Family."""

    name: str = "smolvlm"
    model: ClassVar[type[PreTrainedModel]] = Idefics3ForConditionalGeneration
    template: str = "smolvlm"
    text_tokens: ClassVar[tuple[str, str]] = ("<|im_start|>", "<|im_end|>")  # special tokens of the text model

    def special_tokens(self) -> list[str]:
        edge = range(1, MOST_EDGE + 1)
        tiles = [tile_name(row, column) for row in edge for column in edge]
        return [*self.text_tokens, AROUND, IMAGE_MARK, END_OF_UTTERANCE, GLOBAL, *tiles]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> SmolVlmProcessor:
        return SmolVlmProcessor(tokenizer, settings)

    def draw(self, model: Any, shape: FromScratch) -> None:
        positions = model.model.vision_model.embeddings.position_embedding.weight
        torch.nn.init.normal_(positions, std=shape.vision_position_std)

    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        image = processor.settings.image
        return {
            "vision_config.image_size": (config.vision_config.image_size, image.size),
            "vision_config.patch_size": (config.vision_config.patch_size, image.patch_size),
            "scale_factor": (config.scale_factor, scale_factor(processor.settings)),
            "image_token_id": (config.image_token_id, token_id(processor.tokenizer, IMAGE_MARK)),
        }

    def config(self, processor: Processor, shape: FromScratch) -> Idefics3Config:
        vision = tower_shape(processor, shape)
        text = {
            "model_type": "llama",
            **text_shape(processor, shape, positions=MAX_POSITIONS),
            "num_key_value_heads": shape.text_heads,
        }
        return Idefics3Config(
            vision_config=vision,
            text_config=text,
            scale_factor=scale_factor(processor.settings),
            image_token_id=token_id(processor.tokenizer, IMAGE_MARK),
            tie_word_embeddings=False,
        )

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        return {**TOWER_GROUPS, "*connector.modality_projection.proj.weight": Merged()}

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS, "vision_config": "sdpa"})
        self.for_generation(model)
        merge_unchecked(model.model)

    def for_generation(self, model: PreTrainedModel) -> None:
        # The forward pass asks its model for the images' features by this name.
        model.model.get_image_features = partial(image_features, model.model)

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        if not shown:
            return {}
        return {"pixel_values": pixels.pick(shown).values.to(model.device, model.dtype)}

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        config = getattr(model, "module", model).config
        pixel_values, dummy = batch.pixel_values, []
        if not len(batch.image_grid):
            width = config.vision_config.image_size // config.vision_config.patch_size
            pixel_values = pixel_values.new_zeros(width**2, pixel_values.shape[1])
            dummy = [config.image_token_id] * (width // config.scale_factor) ** 2
        row = row_of(batch, dummy=dummy)
        return packed_logits(
            model,
            batch,
            row,
            pixel_values=pixel_values,
        )


def scale_factor(settings: ModelSettings) -> int:
    """Edge of a token in patches: a tile becomes `model.image.latents` tokens."""
    return side(settings) // math.isqrt(settings.image.latents)


def image_features(model: Any, pixel_values: Tensor, *_: Any, **__: Any) -> SimpleNamespace:
    """What Idefics3Model.get_image_features gives, which counts images without pixels on the GPU.

    Args:
        model: an Idefics3Model; only its modules are called, each once.
        pixel_values: [P, 3 * edge * edge], the patches of all tiles.
    """
    vision = model.vision_model
    edge, width = vision.config.patch_size, vision.config.image_size // vision.config.patch_size
    tiles = tiles_of(pixel_values.to(model.dtype), edge, width)
    seen = torch.ones(len(tiles), width, width, dtype=torch.bool, device=tiles.device)
    embedded = vision.embeddings(pixel_values=tiles, patch_attention_mask=seen)
    hidden = vision.post_layernorm(vision.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state)
    return SimpleNamespace(pooler_output=model.connector(hidden).flatten(0, 1), last_hidden_state=hidden)
