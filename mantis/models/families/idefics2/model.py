"""Idefics2: a SigLIP tower at the images' own shapes, a perceiver resampler, a Mistral. Mantis-Idefics2.

transformers pads every image of a batch to the largest before its tower. Here the patches of all images stand behind
each other in one row and attend within their image: the same features without computing a patch that nobody needs
(tests/unit/mantis/models/families/test_families.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Idefics2Config, Idefics2ForConditionalGeneration, PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK
from mantis.models.families.idefics2.processing import Idefics2Processor
from mantis.models.family import Processor
from mantis.models.flop_groups import RESAMPLER_GROUPS, TOWER_GROUPS, FlopGroup, Merged
from mantis.models.image_places import merge_unchecked
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tokenization import token_id
from mantis.models.weights.whole_model import WholeModel, text_shape, tower_shape

AROUND = "<fake_token_around_image>"
END_OF_UTTERANCE = "<end_of_utterance>"
MAX_POSITIONS = 32_768
RESAMPLER_DEPTH = 3
PARTS: dict[str, Part] = {"vision_model": "vision", "connector": "projector"}


@dataclass(frozen=True, kw_only=True)
class Idefics2(WholeModel):
    """See Family."""

    name: str = "idefics2"
    model: ClassVar[type[PreTrainedModel]] = Idefics2ForConditionalGeneration
    template: str = "idefics2"

    def special_tokens(self) -> list[str]:
        return ["<s>", "</s>", AROUND, IMAGE_MARK, END_OF_UTTERANCE]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> Idefics2Processor:
        return Idefics2Processor(tokenizer, settings)

    def draw(self, model: Any, shape: FromScratch) -> None:
        vision, resampler = model.model.vision_model, model.model.connector.perceiver_resampler
        torch.nn.init.normal_(vision.embeddings.position_embedding.weight, std=shape.vision_position_std)
        torch.nn.init.normal_(resampler.latents)  # all ones, as published weights began, never come apart

    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        image = processor.settings.image
        return {
            "vision_config.image_size": (config.vision_config.image_size, image.size),
            "vision_config.patch_size": (config.vision_config.patch_size, image.patch_size),
            "perceiver_config.resampler_n_latents": (config.perceiver_config.resampler_n_latents, image.latents),
            "image_token_id": (config.image_token_id, token_id(processor.tokenizer, IMAGE_MARK)),
        }

    def config(self, processor: Processor, shape: FromScratch) -> Idefics2Config:
        image = processor.settings.image
        vision = tower_shape(processor, shape)
        resampler = {
            "hidden_size": shape.text_width,
            "resampler_n_latents": image.latents,
            "resampler_depth": RESAMPLER_DEPTH,
            "resampler_n_heads": shape.text_heads,
            "resampler_head_dim": shape.text_width // shape.text_heads,
            "num_key_value_heads": shape.text_heads,
            "initializer_range": shape.text_width**-0.5,
        }
        text = {
            "model_type": "mistral",
            **text_shape(processor, shape, positions=MAX_POSITIONS),
            "num_key_value_heads": shape.text_heads,
            "sliding_window": None,
        }
        mark = token_id(processor.tokenizer, IMAGE_MARK)
        return Idefics2Config(vision_config=vision, perceiver_config=resampler, text_config=text, image_token_id=mark)

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        return RESAMPLER_GROUPS | TOWER_GROUPS

    def for_packing(self, model: PreTrainedModel) -> None:
        self.for_generation(model)
        model.set_attn_implementation({"text_config": attention.SEGMENTS})
        merge_unchecked(model.model)

    def for_generation(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"vision_config": attention.IMAGES})
        # The forward pass asks its model for the images' features by this name.
        model.model.get_image_features = partial(image_features, model.model)

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        if not shown:
            return {}
        picked = pixels.pick(shown)
        values = picked.values.to(model.device, model.dtype)
        return {"pixel_values": values, "pixel_attention_mask": picked.image_grid}  # numbers, read on the host

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        pixel_values, image_grid, dummy = batch.pixel_values, batch.image_grid, []
        if not len(image_grid):
            config = getattr(model, "module", model).config
            pixel_values, image_grid = pixel_values.new_zeros(1, pixel_values.shape[1]), image_grid.new_ones(1, 2)
            dummy = [config.image_token_id] * config.perceiver_config.resampler_n_latents
        row = row_of(batch, dummy=dummy)
        return packed_logits(
            model,
            batch,
            row,
            pixel_values=pixel_values,
            pixel_attention_mask=image_grid,
        )


def image_features(model: Any, pixel_values: Tensor, pixel_attention_mask: Tensor, **_: Any) -> SimpleNamespace:
    """What Idefics2Model.get_image_features gives, for unpadded images; `generate` looks for arguments of these names.

    Args:
        model: an Idefics2Model; only its modules are called, each once, whatever images there are: under ZeRO-3 all
            ranks have to make the same calls.
        pixel_values: [P, 3 * edge * edge], the patches of all images.
        pixel_attention_mask: [N, 2] on the host, their rows and columns.
    """
    vision, connector = model.vision_model, model.connector
    counts = pixel_attention_mask.prod(1).tolist()
    edge = vision.config.patch_size
    pixels = pixel_values.to(dtype=model.dtype).view(-1, 3, edge, edge)
    embedded = vision.embeddings.patch_embedding(pixels).flatten(1)
    places = position_ids(pixel_attention_mask.tolist(), vision.embeddings.num_patches_per_side).to(pixels.device)
    hidden = (embedded + vision.embeddings.position_embedding(places)).unsqueeze(0)
    hidden = vision.encoder(inputs_embeds=hidden, attention_mask=counts).last_hidden_state
    context = connector.modality_projection(vision.post_layernorm(hidden))[0]
    # The resampler has a few latents per image and attends to all of its patches: here padding costs next to nothing.
    padded = pad_sequence(context.split(counts), batch_first=True)
    mask = pad_sequence([torch.ones(count, dtype=torch.bool) for count in counts], batch_first=True)
    features = connector.perceiver_resampler(context=padded, attention_mask=mask.to(pixels.device))
    return SimpleNamespace(pooler_output=features.flatten(0, 1), last_hidden_state=hidden)


def position_ids(image_grid: Sequence[Sequence[int]], side: int) -> Tensor:
    """[P] int64: for each patch the position of a square of `side` x `side` that lies where it lies in its image.

    Source: Idefics2VisionEmbeddings of transformers 5, with its roundings: `step` is a float32, and is multiplied.
    """
    cu_seqlens = torch.arange(1 / side, 1.0, 1 / side)
    places = []
    for rows, columns in image_grid:
        down, across = (
            torch.bucketize(
                (torch.arange(count, dtype=torch.float32) * step).clamp(max=1 - 1e-6), cu_seqlens, right=True
            )
            for count, step in ((rows, 1.0 / torch.tensor(rows)), (columns, 1.0 / torch.tensor(columns)))
        )
        places.append((down[:, None] * side + across[None, :]).flatten())
    return torch.cat(places)
