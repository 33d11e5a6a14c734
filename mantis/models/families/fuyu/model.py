"""Fuyu: no vision tower; patches of 30 x 30 pixels go through one linear layer into a Persimmon. Mantis-Fuyu.

transformers' FuyuProcessor takes one image per text. Several are done as the official MFuyuProcessor does them: the
stretches of text between images are tokenized each on its own, and every mark becomes the image's rows, a placeholder
per patch and a newline token at the end of a row, with a token before and two behind them. The patches of all images
are put in at the placeholders in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    FuyuConfig,
    FuyuForCausalLM,
    FuyuImageProcessor,
    FuyuProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from mantis.config.recipe import FromScratch, ModelSettings, Part
from mantis.images.preprocessing import Normalization, normalize, patches_of, resize_to
from mantis.models import attention
from mantis.models.conversation import ImageSize
from mantis.models.packed_batch import PackedBatch, Pixels, row_of
from mantis.models.processing.chat_templates import jinja_template, load_chat_template
from mantis.models.processing.tokenization import TextEncoder, token_id
from mantis.models.weights import loading

PLACEHOLDER, NEWLINE = "|SPEAKER|", "|NEWLINE|"
BEGIN_IMAGE, END_IMAGE = "|IMAGE|", "|ENDOFIMAGE|"
BEGIN_TEXT, BEGIN_ANSWER, END_OF_TEXT = "<s>", "<0x04>", "|ENDOFTEXT|"
MAX_POSITIONS = 16_384
PAD_LEVEL = 1  # of 255: what the official processor pads images with, before it scales them
NORMALIZATION = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class Fuyu(TextEncoder):
    """See mantis/models/family.py, which says what each of these functions is for."""

    name: str = "fuyu"
    prompt: str = "fuyu"
    mark: str = PLACEHOLDER
    apart: bool = True

    def special_tokens(self) -> list[str]:
        return [BEGIN_TEXT, END_OF_TEXT, PLACEHOLDER, NEWLINE, BEGIN_IMAGE, END_IMAGE, BEGIN_ANSWER]

    def image_ids(self, size: ImageSize, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> list[int]:
        rows, columns = grid(size, settings)
        begin, end, text = (token_id(tokenizer, token) for token in (BEGIN_IMAGE, END_IMAGE, BEGIN_TEXT))
        row = [token_id(tokenizer, PLACEHOLDER)] * columns + [token_id(tokenizer, NEWLINE)]
        return [begin, *row * rows, end, text]

    def image_tokens(self, size: ImageSize, settings: ModelSettings) -> int:
        rows, columns = grid(size, settings)
        return rows * (columns + 1) + 3

    def image_patches(self, size: ImageSize, settings: ModelSettings) -> int:
        rows, columns = grid(size, settings)
        return rows * columns

    def preprocess(self, images: Sequence[bytes], settings: ModelSettings) -> Pixels:
        edge = settings.image.patch_size
        parts, image_grid = [torch.empty(0, 3 * edge * edge)], []
        for image in images:
            pixels = resize_to(image, partial(fit, settings=settings), "bilinear")
            height, width = pixels.shape[2:]
            padded = pad(pixels, (0, -width % edge, 0, -height % edge), value=PAD_LEVEL)
            padded = padded.contiguous(memory_format=torch.channels_last)
            patches = patches_of(normalize(padded, NORMALIZATION), edge)
            image_grid.append(patches.shape[:2])
            # Fuyu's patches have their colours last (FuyuImageProcessor.patchify_image).
            parts.append(patches.permute(0, 1, 3, 4, 2).reshape(-1, 3 * edge * edge))
        return Pixels(values=torch.cat(parts), image_grid=torch.tensor(image_grid, dtype=torch.int64).reshape(-1, 2))

    def build(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, *, seed: int) -> PreTrainedModel:
        if shape := settings.scratch_shape:
            model = self._build_from_scratch(tokenizer, settings, shape, seed)
        else:
            model = loading.load_whole(FuyuForCausalLM, loading.model_folder(settings.base))
            self._check_shape(model.config, tokenizer, settings)
        self.for_packing(model)
        model.generation_config.eos_token_id = self.end_of_answer(tokenizer, settings)
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model.float().train()

    def _build_from_scratch(
        self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch, seed: int
    ) -> FuyuForCausalLM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = FuyuForCausalLM(self._config(tokenizer, settings, shape))
        return model

    def _check_shape(self, config: Any, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> None:
        image = settings.image
        expected = {
            "patch_size": (config.patch_size, image.patch_size),
            "image_token_id": (config.image_token_id, token_id(tokenizer, PLACEHOLDER)),
        }
        loading.check_shape(settings, expected)

    def _config(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, shape: FromScratch) -> FuyuConfig:
        image = settings.image
        text = {
            "model_type": "persimmon",
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": round(shape.text_mlp_ratio * shape.text_width),
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_heads,
            "max_position_embeddings": MAX_POSITIONS,
            "initializer_range": shape.text_width**-0.5,  # as in llava.py
            "qk_layernorm": True,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": self.end_of_answer(tokenizer, settings),
        }
        return FuyuConfig(
            text_config=text,
            image_size=image.size,
            patch_size=image.patch_size,
            image_token_id=token_id(tokenizer, PLACEHOLDER),
            initializer_range=shape.text_width**-0.5,
        )

    def for_packing(self, model: PreTrainedModel) -> None:
        attention.register()
        model.set_attn_implementation({"text_config": attention.SEGMENTS})

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
            attention_mask=None,  # see llava.py
            use_cache=False,
            logits_to_keep=batch.target_positions,
            segments=row.segments,
        )
        logits: Tensor = output.logits[0]
        return logits

    def save_processor(self, tokenizer: PreTrainedTokenizerFast, settings: ModelSettings, folder: Path) -> None:
        image = settings.image
        processor = FuyuProcessor(
            image_processor=FuyuImageProcessor(
                size={"height": image.size, "width": image.width or image.size},
                patch_size={"height": image.patch_size, "width": image.patch_size},
            ),
            tokenizer=tokenizer,
        )
        tokenizer.chat_template = jinja_template(load_chat_template(settings.prompt))
        processor.save_pretrained(folder)


def fit(height: int, width: int, settings: ModelSettings) -> tuple[int, int]:
    """An image's height and width after the resize: made smaller to fit, never larger (FuyuImageProcessor.resize)."""
    largest = settings.image.size, settings.image.width or settings.image.size
    if height <= largest[0] and width <= largest[1]:
        return height, width
    scale = min(largest[0] / height, largest[1] / width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def grid(size: ImageSize, settings: ModelSettings) -> tuple[int, int]:
    """Rows and columns of patches of an image; one that a patch only partly covers is filled up."""
    height, width = fit(size.height, size.width, settings)
    return -(-height // settings.image.patch_size), -(-width // settings.image.patch_size)
