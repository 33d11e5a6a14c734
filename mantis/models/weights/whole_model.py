"""Families whose base is one model folder of transformers: how they are built, from nothing or from the folder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from mantis.config.model_settings import FromScratch
from mantis.models.family import Family, Processor
from mantis.models.weights import loading


class WholeModel(ABC):
    """Builds a family's model, in the same steps for each such family."""

    model: ClassVar[type[PreTrainedModel]]  # of transformers

    def build(self, processor: Processor, *, seed: int) -> PreTrainedModel:
        """See Family."""
        if shape := processor.settings.scratch_shape:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = self.model(self.config(processor, shape))
                self.draw(model, shape)
        else:
            model = self.load(processor, seed=seed)
        return loading.ready_to_train(cast(Family, self), model, processor)

    def load(self, processor: Processor, *, seed: int) -> PreTrainedModel:
        """Load the base, whose shape must be that of the settings, and add rows for new tokens.

        Raises:
            ConfigError: the weights have another shape than the settings say.
            InputError: weights are missing.
        """
        model = loading.load_whole(self.model, loading.model_folder(processor.settings.base))
        loading.check_shape(processor.settings, self.expected_shape(model.config, processor))
        loading.add_missing_rows(model, processor, seed=seed)
        return model

    @abstractmethod
    def config(self, processor: Processor, shape: FromScratch) -> PreTrainedConfig:
        """Return the configuration of a model from nothing."""

    def draw(self, model: Any, shape: FromScratch) -> None:  # noqa: B027
        """Draw the weights of a new model that transformers leaves constant or draws too small. Here: none."""

    @abstractmethod
    def expected_shape(self, config: Any, processor: Processor) -> Mapping[str, tuple[Any, Any]]:
        """Return the fields that `loading.check_shape` compares."""


def text_shape(processor: Processor, shape: FromScratch, *, positions: int) -> dict[str, Any]:
    """The fields of a text model from nothing that all of transformers' configurations name alike."""
    return {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": shape.text_width,
        "intermediate_size": round(shape.text_mlp_ratio * shape.text_width),
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.text_heads,
        "max_position_embeddings": positions,
        # LLaMA's 0.02 is the inverse root of a width of 2,500; for narrow models it makes every signal faint.
        "initializer_range": shape.text_width**-0.5,
        "pad_token_id": processor.tokenizer.pad_token_id,
        "bos_token_id": processor.tokenizer.bos_token_id,
        "eos_token_id": processor.end_of_answer,
    }


def tower_shape(processor: Processor, shape: FromScratch) -> dict[str, Any]:
    """The same fields of a vision tower for images of one size."""
    image = processor.settings.image
    return {
        "image_size": image.size,
        "patch_size": image.patch_size,
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
    }
