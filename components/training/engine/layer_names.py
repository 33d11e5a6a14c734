"""Checks the names of layers that a recipe writes: the targets of adapters, and modules to save.

A model knows its names when it is built, which may be days after the start of a run. So they are checked before, on a
model of the same family with as many layers, of tiny width.
"""

from typing import Any

from transformers import AutoConfig

from components.training.engine.adapter_training import adapted_layers
from components.training.engine.parameter_groups import freeze
from mantis.config.model_settings import SCRATCH, FromScratch, ModelSettings
from mantis.config.recipe import Recipe
from mantis.errors import InputError
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.models.weights.loading import tokenizer_folder
from mantis.models.weights.mirror import resolved
from mantis.store.base import ObjectStore

WIDTH, HEADS, VOCABULARY = 16, 2, 300  # of the tiny model


def check_layer_names(store: ObjectStore, recipe: Recipe) -> None:
    """Check every name of a layer in `training.adapter`. Of weights, only the configurations are read.

    Raises:
        ConfigError: the model has no such layer, or it is frozen, or trained in another way.
        InputError: a configuration cannot be read.
    """
    training = recipe.training
    kind = family(recipe.model.family)
    settings = recipe.model.model_copy(
        update={"base": SCRATCH, "vision": "", "projector": "", "from_scratch": tiny_shape(store, recipe.model)}
    )
    tokenizer = train_tokenizer([], vocabulary=VOCABULARY, special_tokens=kind.special_tokens())
    model = kind.build(kind.processor(tokenizer, settings), seed=0)
    adapted_layers(model, kind, training)
    freeze(model, kind, training)


def tiny_shape(store: ObjectStore, settings: ModelSettings) -> FromScratch:
    """A shape with the layers of the recipe's model, of tiny width."""
    shape = settings.scratch_shape
    if shape:
        layers = {"text_layers": shape.text_layers, "vision_layers": shape.vision_layers}
    else:
        found = resolved(store, settings)
        base = _configuration(found.base)
        vision = _configuration(found.vision) if found.vision else base
        vision = getattr(vision, "vision_config", vision)  # a tower's own configuration has no such section
        layers = {"text_layers": base.get_text_config().num_hidden_layers}
        if hasattr(vision, "num_hidden_layers"):
            layers["vision_layers"] = vision.num_hidden_layers
    sizes = {"vision_width": WIDTH, "vision_heads": HEADS, "text_width": WIDTH, "text_heads": HEADS}
    return FromScratch(vocabulary=VOCABULARY, **sizes, **layers)


def _configuration(address: str) -> Any:
    with tokenizer_folder(address) as folder:
        try:
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The config.json of {address} cannot be read: {error}", remedy="Bring the folder again, whole."
            ) from None
