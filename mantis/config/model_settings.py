"""The section `model` of a recipe: family, weights, prompt and shape."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer

from mantis.config.field_types import Name
from mantis.config.identity import Settings

SCRATCH = "scratch"  # the value of model.base for models that are built from nothing


class ImageSettings(Settings):
    """How a model cuts images. Data preparation counts tokens by it, so published weights must agree with it."""

    section = "model.image"

    size: int = Field(
        48, ge=8, description="Edge of an image in pixels; the longest edge where images keep their shape."
    )
    width: int | None = Field(
        None, ge=8, description="Largest width in pixels, where it differs from the largest height (Fuyu)."
    )
    patch_size: int = Field(24, ge=4, description="Edge of a patch in pixels.")
    feature_layer: int = Field(
        -1, description="vision_feature_layer of transformers: the layer of the tower whose output is used."
    )
    feature_select: Literal["", "default", "full"] = Field(
        "",
        description="vision_feature_select_strategy of transformers: `default` drops the first position. Empty: the "
        "family's own. The released Mantis-SigLIP has `default`, and so one patch less.",
    )
    latents: int = Field(4, ge=1, description="Latents that a resampler makes of an image.")


class FromScratch(Settings):
    """Shape of a model that is built from nothing. Widths count units, layers and heads count modules."""

    section = "model.from_scratch"

    vision_width: int = Field(96, ge=8)
    vision_layers: int = Field(2, ge=1)
    vision_heads: int = Field(4, ge=1)
    vision_position_std: float = Field(
        0.5,
        gt=0,
        description="Standard deviation of the tower's position embeddings at the start. From scratch, CLIP's 0.02 "
        "leaves place and motion unlearned for thousands of steps.",
    )
    text_width: int = Field(128, ge=8)
    text_layers: int = Field(3, ge=1)
    text_heads: int = Field(4, ge=1)
    text_mlp_ratio: float = Field(3.0, gt=0, description="Width of the MLP as a multiple of text_width.")
    vocabulary: int = Field(4096, ge=300, description="Largest number of tokens in the tokenizer that assemble trains.")


class ModelSettings(Settings):
    """Which model is trained, and from what."""

    section = "model"

    family: Name = "llava-clip"
    base: str = Field(
        SCRATCH,
        description="`scratch`: built in the shape of `from_scratch`, with a tokenizer trained on the mixture. Else a "
        "published model's name (`mantis model list`), a key in the store such as models/<fingerprint>, or a folder, "
        "file:// or s3:// URL. It is a whole model of the family, or with `vision` the language model alone.",
    )
    vision: str = Field(
        "", description="Name, folder or URL of the CLIP or SigLIP tower to put before the LLaMA in `base`."
    )
    projector: str = Field("", description="Name, folder or URL of the model of stage 1 whose projector is taken.")
    prompt: Name = Field("llama3", description="A chat template: `compact`, or one of a family's.")
    image: ImageSettings = ImageSettings()
    from_scratch: FromScratch | None = Field(
        None,
        validate_default=True,
        description="Only with `base: scratch`, where it may be left out. Every other base has a shape of its own.",
    )

    @field_validator("from_scratch", mode="before")
    @classmethod
    def _only_with_base_scratch(cls, value: Any, info: ValidationInfo) -> Any:
        base = info.data.get("base")  # absent where it is wrong itself
        if base == SCRATCH:
            return {} if value is None else value
        if value is not None and base is not None:
            raise ValueError(
                f"model.base = {base!r} has its own shape; remove the section (model.from_scratch=null), or set "
                f"model.base={SCRATCH}"
            )
        return None

    @property
    def scratch_shape(self) -> FromScratch | None:
        """The shape to build a model in; None where `base` names weights, even if `model_copy` put them there."""
        return self.from_scratch if self.base == SCRATCH else None

    def identity(self, *names: str) -> dict[str, Any]:
        """As in `Settings`. A model from published weights has no shape, even if `model_copy` put one there."""
        if self.scratch_shape is None and self.from_scratch is not None:
            return self.model_copy(update={"from_scratch": None}).identity(*names)
        return super().identity(*names)

    @model_serializer(mode="wrap")
    def _without_an_absent_shape(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.scratch_shape is None:
            written.pop("from_scratch", None)
        return written
