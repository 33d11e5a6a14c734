"""Flamingo, as Idefics 1: a CLIP-like tower, a perceiver, gated cross attention into a LLaMA. Mantis-Flamingo.

OpenFlamingo's released weights need remote code and are out; transformers' Idefics is the same architecture. A token
sees the last image before it, and before the first image none: in a packed row the same, within its sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    IdeficsConfig,
    IdeficsForVisionText2Text,
    IdeficsImageProcessor,
    IdeficsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics.image_processing_idefics import IDEFICS_STANDARD_MEAN, IDEFICS_STANDARD_STD

from mantis.config.recipe import FromScratch, ModelSettings, Part
from mantis.images.preprocessing import Normalization, normalize, resize_square
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK, ImageSize
from mantis.models.packed_batch import PackedBatch, Pixels, row_of
from mantis.models.processing.chat_templates import jinja_template, load_chat_template
from mantis.models.processing.tokenization import TextEncoder, token_id
from mantis.models.weights import loading

AROUND = "<fake_token_around_image>"
END_OF_CHUNK = "<|endofchunk|>"
MAX_POSITIONS = 2048
PERCEIVER_DEPTH = 2
CROSS_LAYER_INTERVAL = 1  # from scratch: at every layer; idefics-9b has them at every fourth
NORMALIZATION = Normalization(mean=tuple(IDEFICS_STANDARD_MEAN), std=tuple(IDEFICS_STANDARD_STD))
PARTS: dict[str, Part] = {
    "vision_model": "vision",
    "perceiver_resampler": "projector",
    "gated_cross_attn_layers": "cross_attention",
    "embed_tokens": "embeddings",
}


@dataclass(frozen=True, kw_only=True)
class Flamingo(TextEncoder):
    """See mantis/models/family.py, which says what each of these functions is for."""

    name: str = "flamingo"
    prompt: str = "flamingo"

    def special_tokens(self) -> list[str]:
        return ["<s>", "</s>", AROUND, IMAGE_MARK, END_OF_CHUNK]

    def image_ids(self, size: ImageSize, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> list[int]:
        return [token_id(tokenizer, IMAGE_MARK)]  # its latents are looked at, and take no positions

    def image_tokens(self, size: ImageSize, settings: ModelSettings) -> int:
        return 1

    def image_patches(self, size: ImageSize, settings: ModelSettings) -> int:
        return (settings.image.size // settings.image.patch_size) ** 2

    def preprocess(self, images: Sequence[bytes], settings: ModelSettings) -> Pixels:
        image = settings.image
        image_grid = torch.full((len(images), 2), image.size // image.patch_size, dtype=torch.int64)
        return Pixels(values=normalize(resize_square(images, image.size), NORMALIZATION), image_grid=image_grid)

    def build(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, *, seed: int) -> PreTrainedModel:
        if shape := settings.scratch_shape:
            model = self._build_from_scratch(tokenizer, settings, shape, seed)
        else:
            model = loading.load_whole(IdeficsForVisionText2Text, loading.model_folder(settings.base))
            model.config.image_token_id = token_id(tokenizer, IMAGE_MARK)  # which Idefics' own does not hold
            self._check_shape(model.config, tokenizer, settings)
        self.for_packing(model)
        model.generation_config.eos_token_id = self.end_of_answer(tokenizer, settings)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model.float().train()

    def _build_from_scratch(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch, seed: int
    ) -> IdeficsForVisionText2Text:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = IdeficsForVisionText2Text(self._config(tokenizer, settings, shape))
            embeddings = model.model.vision_model.embeddings
            torch.nn.init.normal_(embeddings.position_embedding.weight, std=shape.vision_position_std)
        return model

    def _check_shape(self, config: Any, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> None:
        image = settings.image
        expected = {
            "vision_config.image_size": (config.vision_config.image_size, image.size),
            "vision_config.patch_size": (config.vision_config.patch_size, image.patch_size),
            "perceiver_config.resampler_n_latents": (config.perceiver_config.resampler_n_latents, image.latents),
        }
        loading.check_shape(settings, expected)

    def _config(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch) -> IdeficsConfig:
        image = settings.image
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
            vocab_size=len(tokenizer),
            hidden_size=shape.text_width,
            intermediate_size=round(shape.text_mlp_ratio * shape.text_width),
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            max_position_embeddings=MAX_POSITIONS,
            initializer_range=shape.text_width**-0.5,  # as in llava.py
            cross_layer_interval=CROSS_LAYER_INTERVAL,
            alpha_initializer="ones",  # zeros, as published weights began, protect a language model; here is none
            alpha_type="float",
            use_resampler=True,
            # These fields freeze parts in the constructor; what is trained is the recipe's to say.
            freeze_text_layers=False,
            freeze_vision_layers=False,
            vision_config=vision,
            perceiver_config=perceiver,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=self.end_of_answer(tokenizer, settings),
            image_token_id=token_id(tokenizer, IMAGE_MARK),
        )

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
        output = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            pixel_values=pixel_values.unsqueeze(0),
            image_attention_mask=mask.unsqueeze(0),
            attention_mask=None,  # see llava.py
            use_cache=False,
            logits_to_keep=batch.target_positions,
            segments=row.segments,
        )
        logits: Tensor = output.logits[0]
        return logits

    def save_processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, folder: Path) -> None:
        processor = IdeficsProcessor(
            image_processor=IdeficsImageProcessor(image_size=settings.image.size),
            tokenizer=tokenizer,
            image_size=settings.image.size,
        )
        tokenizer.chat_template = jinja_template(load_chat_template(settings.prompt))
        processor.save_pretrained(folder)


def last_seen(tokens: Tensor, segments: Sequence[int], image: int) -> Tensor:
    """[T] int64: which image of the row each token sees, the last one of its segment up to there; -1: none."""
    marks = (tokens == image).long()
    so_far = marks.cumsum(0)
    per_segment = torch.stack([part.sum() for part in torch.split(marks, list(segments))])
    before = (per_segment.cumsum(0) - per_segment).repeat_interleave(
        torch.tensor(segments, device=tokens.device), output_size=len(tokens)
    )
    return torch.where(so_far > before, so_far - 1, -1)
