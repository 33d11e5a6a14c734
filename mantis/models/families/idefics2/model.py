"""Idefics2: a SigLIP tower at the images' own shapes, a perceiver resampler, a Mistral. Mantis-Idefics2.

transformers pads every image of a batch to the largest before its tower. Here the patches of all images stand behind
each other in one row and attend within their image: the same features (tests/components/models/test_families.py)
without computing a patch that nobody needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2ImageProcessor,
    Idefics2Processor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from mantis.config.recipe import FromScratch, ModelSettings, Part
from mantis.images.preprocessing import Normalization, normalize, patches_of, resize_to
from mantis.models import attention
from mantis.models.conversation import IMAGE_MARK, ImageSize
from mantis.models.packed_batch import PackedBatch, Pixels, row_of
from mantis.models.processing.chat_templates import jinja_template, load_chat_template
from mantis.models.processing.tokenization import TextEncoder, token_id
from mantis.models.weights import loading

AROUND = "<fake_token_around_image>"
END_OF_UTTERANCE = "<end_of_utterance>"
MAX_POSITIONS = 32_768
SHORTEST = 378 / 980  # of the longest edge, to which small images are enlarged (idefics2-8b, preprocessor_config.json)
RESAMPLER_DEPTH = 3
PARTS: dict[str, Part] = {"vision_model": "vision", "connector": "projector"}
NORMALIZATION = Normalization(mean=tuple(IMAGENET_STANDARD_MEAN), std=tuple(IMAGENET_STANDARD_STD))


@dataclass(frozen=True, kw_only=True)
class Idefics2(TextEncoder):
    """See mantis/models/family.py, which says what each of these functions is for."""

    name: str = "idefics2"
    prompt: str = "idefics2"

    def special_tokens(self) -> list[str]:
        return ["<s>", "</s>", AROUND, IMAGE_MARK, END_OF_UTTERANCE]

    def image_ids(self, size: ImageSize, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> list[int]:
        return [token_id(tokenizer, IMAGE_MARK)] * settings.image.latents

    def image_tokens(self, size: ImageSize, settings: ModelSettings) -> int:
        return settings.image.latents

    def image_patches(self, size: ImageSize, settings: ModelSettings) -> int:
        height, width = fit(size.height, size.width, settings)
        edge = settings.image.patch_size
        return (height // edge) * (width // edge)

    def preprocess(self, images: Sequence[bytes], settings: ModelSettings) -> Pixels:
        edge = settings.image.patch_size
        parts, image_grid = [torch.empty(0, 3 * edge * edge)], []
        for image in images:
            pixels = resize_to(image, partial(fit, settings=settings), "bilinear")
            # What is left beyond the last whole patch is never seen, as in transformers.
            height, width = (length // edge * edge for length in pixels.shape[2:])
            patches = patches_of(normalize(pixels[:, :, :height, :width], NORMALIZATION), edge)
            parts.append(patches.reshape(-1, 3 * edge * edge))
            image_grid.append(patches.shape[:2])
        return Pixels(values=torch.cat(parts), image_grid=torch.tensor(image_grid, dtype=torch.int64).reshape(-1, 2))

    def build(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, *, seed: int) -> PreTrainedModel:
        if shape := settings.scratch_shape:
            model = self._build_from_scratch(tokenizer, settings, shape, seed)
        else:
            model = loading.load_whole(Idefics2ForConditionalGeneration, loading.model_folder(settings.base))
            self._check_shape(model.config, tokenizer, settings)
        self.for_packing(model)
        model.generation_config.eos_token_id = self.end_of_answer(tokenizer, settings)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model.float().train()

    def _build_from_scratch(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch, seed: int
    ) -> Idefics2ForConditionalGeneration:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Idefics2ForConditionalGeneration(self._config(tokenizer, settings, shape))
            vision, resampler = model.model.vision_model, model.model.connector.perceiver_resampler
            torch.nn.init.normal_(vision.embeddings.position_embedding.weight, std=shape.vision_position_std)
            torch.nn.init.normal_(resampler.latents)  # all ones, as published weights began, never come apart
        return model

    def _check_shape(self, config: Any, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> None:
        image = settings.image
        expected = {
            "vision_config.image_size": (config.vision_config.image_size, image.size),
            "vision_config.patch_size": (config.vision_config.patch_size, image.patch_size),
            "perceiver_config.resampler_n_latents": (config.perceiver_config.resampler_n_latents, image.latents),
            "image_token_id": (config.image_token_id, token_id(tokenizer, IMAGE_MARK)),
        }
        loading.check_shape(settings, expected)

    def _config(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch
    ) -> Idefics2Config:
        image = settings.image
        vision = {
            "image_size": image.size,
            "patch_size": image.patch_size,
            "hidden_size": shape.vision_width,
            "intermediate_size": 4 * shape.vision_width,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
        }
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
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": round(shape.text_mlp_ratio * shape.text_width),
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "num_key_value_heads": shape.text_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "sliding_window": None,
            "initializer_range": shape.text_width**-0.5,  # as in llava.py
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": self.end_of_answer(tokenizer, settings),
        }
        mark = token_id(tokenizer, IMAGE_MARK)
        return Idefics2Config(vision_config=vision, perceiver_config=resampler, text_config=text, image_token_id=mark)

    def for_packing(self, model: PreTrainedModel) -> None:
        self.for_generation(model)
        model.set_attn_implementation({"text_config": attention.SEGMENTS})

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
        return {"pixel_values": values, "pixel_attention_mask": picked.image_grid.to(model.device)}

    def parameter_group(self, parameter: str) -> Part:
        return next((part for name, part in PARTS.items() if name in parameter.split(".")), "text")

    def forward(self, model: PreTrainedModel, batch: PackedBatch) -> Tensor:
        pixel_values, image_grid, dummy = batch.pixel_values, batch.image_grid, []
        if not len(image_grid):
            config = getattr(model, "module", model).config
            pixel_values, image_grid = pixel_values.new_zeros(1, pixel_values.shape[1]), image_grid.new_ones(1, 2)
            dummy = [config.image_token_id] * config.perceiver_config.resampler_n_latents
        row = row_of(batch, dummy=dummy)
        output = model(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            pixel_values=pixel_values,
            pixel_attention_mask=image_grid,
            attention_mask=None,  # see llava.py
            use_cache=False,
            logits_to_keep=batch.target_positions,
            segments=row.segments,
        )
        logits: Tensor = output.logits[0]
        return logits

    def save_processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, folder: Path) -> None:
        edge = settings.image.size
        processor = Idefics2Processor(
            image_processor=Idefics2ImageProcessor(
                size={"shortest_edge": round(SHORTEST * edge), "longest_edge": edge}, do_image_splitting=False
            ),
            tokenizer=tokenizer,
            image_seq_len=settings.image.latents,
            chat_template=jinja_template(load_chat_template(settings.prompt)),
        )
        processor.save_pretrained(folder)


def fit(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """An image's height and width after the resize: the longest edge at most, the shortest at least what is allowed.

    As transformers' Idefics2ImageProcessor does it, roundings included. An image keeps at least one patch, however
    small `model.image.size` is.
    """
    longest = settings.image.size
    shortest = max(round(SHORTEST * longest), settings.image.patch_size)
    ratio = width / height
    if width >= height and width > longest:
        height, width = int(longest / ratio), longest
    elif height > width and height > longest:
        height, width = longest, int(longest * ratio)
    return max(height, shortest), max(width, shortest)


def image_features(model: Any, pixel_values: Tensor, pixel_attention_mask: Tensor, **_: Any) -> SimpleNamespace:
    """What Idefics2Model.get_image_features gives, for unpadded images; `generate` looks for arguments of these names.

    Args:
        model: an Idefics2Model; only its modules are called, each once, whatever images there are: under ZeRO-3 all
            ranks have to make the same calls.
        pixel_values: [P, 3 * edge * edge], the patches of all images.
        pixel_attention_mask: [N, 2], their rows and columns.
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

    Source: Idefics2VisionEmbeddings of transformers, in its float32.
    """
    cu_seqlens = torch.arange(1 / side, 1.0, 1 / side)
    places = []
    for rows, columns in image_grid:
        down, across = (
            torch.bucketize(
                (torch.arange(count, dtype=torch.float32) / count).clamp(max=1 - 1e-6), cu_seqlens, right=True
            )
            for count in (rows, columns)
        )
        places.append((down[:, None] * side + across[None, :]).flatten())
    return torch.cat(places)
