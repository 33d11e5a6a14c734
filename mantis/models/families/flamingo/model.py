"""Flamingo, as Idefics 1: a CLIP-like tower, a perceiver, gated cross attention into a LLaMA. Mantis-Flamingo.

OpenFlamingo's released weights need remote code and are out; transformers' Idefics is the same architecture. A token
sees the last image before it, and before the first image none: in a packed row the same, within its sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import IdeficsConfig, IdeficsForVisionText2Text, PreTrainedModel, PreTrainedTokenizerFast

from mantis.config.model_settings import FromScratch, ModelSettings
from mantis.config.training_settings import Part
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK
from mantis.models.families.flamingo.processing import FlamingoProcessor
from mantis.models.family import Processor
from mantis.models.flop_groups import RESAMPLER_GROUPS, TOWER_GROUPS, FlopGroup, Merged
from mantis.models.packed_batch import PackedBatch, Pixels, packed_logits, row_of
from mantis.models.processing.tokenization import token_id
from mantis.models.weights import loading
from mantis.models.weights.whole_model import WholeModel, text_shape

AROUND = "<fake_token_around_image>"
END_OF_CHUNK = "<|endofchunk|>"
MAX_POSITIONS = 2048
PERCEIVER_DEPTH = 2
CROSS_LAYER_INTERVAL = 1  # from scratch: at every layer; idefics-9b has them at every fourth
PARTS: dict[str, Part] = {
    "vision_model": "vision",
    "perceiver_resampler": "projector",
    "gated_cross_attn_layers": "cross_attention",
    "embed_tokens": "embeddings",
    "additional_fc": "embeddings",  # the head's rows of added tokens, which a model has to learn to write
}
CROSS_GROUPS: dict[str, FlopGroup] = {
    "*.gated_cross_attn_layers.*.k_proj.*": FlopGroup.CROSS_KEYS,
    "*.gated_cross_attn_layers.*.v_proj.*": FlopGroup.CROSS_KEYS,
}


@dataclass(frozen=True, kw_only=True)
class Flamingo(WholeModel):
    """See Family."""

    name: str = "flamingo"
    model: ClassVar[type[PreTrainedModel]] = IdeficsForVisionText2Text
    template: str = "flamingo"

    def special_tokens(self) -> list[str]:
        return ["<s>", "</s>", AROUND, IMAGE_MARK, END_OF_CHUNK]

    def processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> FlamingoProcessor:
        return FlamingoProcessor(tokenizer, settings)

    def load(self, processor: Processor, *, seed: int) -> PreTrainedModel:
        model = loading.load_whole(self.model, loading.model_folder(processor.settings.base))
        model.config.image_token_id = token_id(processor.tokenizer, IMAGE_MARK)  # which Idefics' own does not hold
        loading.check_shape(processor.settings, self.expected_shape(model.config, processor))
        add_missing_rows(model, loading.rows_needed(processor), seed=seed)
        return model

    def draw(self, model: Any, shape: FromScratch) -> None:
        embeddings = model.model.vision_model.embeddings
        torch.nn.init.normal_(embeddings.position_embedding.weight, std=shape.vision_position_std)

    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        image = processor.settings.image
        return {
            "vision_config.image_size": (config.vision_config.image_size, image.size),
            "vision_config.patch_size": (config.vision_config.patch_size, image.patch_size),
            "perceiver_config.resampler_n_latents": (config.perceiver_config.resampler_n_latents, image.latents),
        }

    def config(self, processor: Processor, shape: FromScratch) -> IdeficsConfig:
        image = processor.settings.image
        vision = {
            "embed_dim": shape.vision_width,
            "image_size": image.size,
            "intermediate_size": 4 * shape.vision_width,
            "patch_size": image.patch_size,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
        }
        perceiver = {
            "use_resampler": True,
            "resampler_n_latents": image.latents,
            "resampler_depth": PERCEIVER_DEPTH,
            "resampler_n_heads": shape.vision_heads,
            "resampler_head_dim": shape.vision_width // shape.vision_heads,
        }
        return IdeficsConfig(
            **text_shape(processor, shape, positions=MAX_POSITIONS),
            cross_layer_interval=CROSS_LAYER_INTERVAL,
            alpha_initializer="ones",  # zeros, as published weights began, protect a language model; here is none
            alpha_type="float",
            use_resampler=True,
            # These fields freeze parts in the constructor; what is trained is the recipe's to say.
            freeze_text_layers=False,
            freeze_vision_layers=False,
            vision_config=vision,
            perceiver_config=perceiver,
            image_token_id=token_id(processor.tokenizer, IMAGE_MARK),
        )

    def flop_groups(self) -> Mapping[str, FlopGroup | Merged]:
        return CROSS_GROUPS | RESAMPLER_GROUPS | TOWER_GROUPS

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"": attention.SEGMENTS, "vision_config": "sdpa"})

    def for_generation(self, model: PreTrainedModel) -> None:
        pass

    def generation_inputs(
        self, model: PreTrainedModel, input_ids: Tensor, pixels: Pixels, shown: Sequence[int]
    ) -> dict[str, Any]:
        image = model.config.image_token_id
        counts = (input_ids == image).sum(1).tolist()
        values, edge, most = pixels.pick(shown).values, model.config.vision_config.image_size, max(1, *counts)
        padded = values.new_zeros(len(counts), most, 3, edge, edge)
        for row, part in zip(padded, torch.split(values, counts), strict=True):
            row[: len(part)] = part
        seen = torch.stack([last_seen(tokens, [len(tokens)], image) for tokens in input_ids])
        mask = seen[..., None] == torch.arange(most)
        return {
            "pixel_values": padded.to(model.device, model.dtype),
            "image_attention_mask": mask.long().to(model.device),
        }

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        image = getattr(model, "module", model).config.image_token_id
        pixel_values, dummy = batch.pixel_values, []
        if not len(batch.image_grid):
            pixel_values, dummy = pixel_values.new_zeros(1, *pixel_values.shape[1:]), [image]
        row = row_of(batch, dummy=dummy)
        seen = last_seen(row.input_ids[0], row.segments, image)
        mask = seen[:, None] == torch.arange(len(pixel_values), device=seen.device)
        return packed_logits(
            model,
            batch,
            row,
            pixel_values=pixel_values.unsqueeze(0),
            image_attention_mask=mask.unsqueeze(0),
        )


def add_missing_rows(model: IdeficsForVisionText2Text, needed: int, *, seed: int) -> None:
    """Add rows for tokens that idefics-9b lacks, such as END_OF_CHUNK, to the additional rows of embedding and head.

    transformers' `resize_token_embeddings` would move the additional rows that are there to other token ids.
    """
    config, embedding, head = model.config, model.model.embed_tokens, model.lm_head
    count = needed - config.vocab_size
    if count <= config.additional_vocab_size:
        return
    width, old = config.hidden_size, config.additional_vocab_size
    rows, outputs = torch.nn.Embedding(count, width), torch.nn.Linear(width, count, bias=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module, kept in ((rows, "additional_embedding"), (outputs, "additional_fc")):
            torch.nn.init.normal_(module.weight, std=config.initializer_range)
            if old:
                module.weight[:old] = getattr(embedding if module is rows else head, kept).weight
    embedding.additional_embedding, head.additional_fc = rows, outputs
    config.additional_vocab_size = embedding.num_additional_embeddings = head.out_additional_features = count


def last_seen(tokens: Tensor, segments: Sequence[int], image: int) -> Tensor:
    """[T] int64: which image of the row each token sees, the last one of its segment up to there; -1: none."""
    marks = (tokens == image).long()
    so_far = marks.cumsum(0)
    per_segment = torch.stack([part.sum() for part in torch.split(marks, list(segments))])
    before = (per_segment.cumsum(0) - per_segment).repeat_interleave(
        torch.tensor(segments, device=tokens.device), output_size=len(tokens)
    )
    return torch.where(so_far > before, so_far - 1, -1)
