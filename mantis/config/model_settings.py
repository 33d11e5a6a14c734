"""The section `model` of a recipe: family, weights, prompt and shape."""

from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from mantis.config.field_types import Name
from mantis.config.identity import Settings

SCRATCH = "scratch"  # the value of model.base for models that are built from scratch


class ImageSettings(Settings):
    """How a model cuts images. Data preparation counts tokens by it, so published weights must agree with it."""

    section = "model.image"

    size: int = Field(48, ge=8, description="Edge of an image in pixels. If images keep their shape, the longest edge.")
    width: int | None = Field(
        None, ge=8, description="Largest width in pixels, if it differs from the largest height (Fuyu)."
    )
    patch_size: int = Field(24, ge=4, description="Edge of a patch in pixels.")
    feature_layer: int = Field(
        -1, description="Layer of the vision tower whose output is used (vision_feature_layer of transformers)."
    )
    feature_select: Literal["", "default", "full"] = Field(
        "",
        description="`default` drops the first position (vision_feature_select_strategy of transformers). Empty means "
        "the family's own value. The released Mantis-SigLIP has `default`, so it has one patch less.",
    )
    latents: int = Field(4, ge=1, description="Number of latents that a resampler makes of an image.")
    max_pixels: int | None = Field(
        None,
        ge=1,
        description="Most pixels of an image. A larger image is made smaller and keeps its shape, or becomes fewer "
        "tiles of size x size: its family decides. Null: size x size. A family without such a bound refuses the field.",
    )
    min_pixels: int | None = Field(
        None,
        ge=1,
        description="Fewest pixels of an image. A smaller image is enlarged. Null: one token. A family without such a "
        "bound refuses the field.",
    )
    max_pixels_per_sample: int | None = Field(
        None,
        ge=1,
        description="Most pixels of all images of a sample together, after the resize, small copies included. Where a "
        "sample has more, max_pixels is lowered for all of its images. An image keeps at least one token or tile. "
        "Null: no bound.",
    )
    smallest: int = Field(
        1,
        ge=1,
        le=64,
        description="Smallest edge in pixels. An image with a shorter edge is enlarged first. The official code has "
        "16 here. An image that would then exceed 64 million pixels stays as it is.",
    )
    partial_patches: bool = Field(
        False,
        description="Idefics2 sees the last patches of an image that the image fills only in part. It sees them where "
        "the largest image of the sample has whole patches. transformers 4.41 trained the official models so.",
    )

    @model_validator(mode="after")
    def _pixels_have_a_range(self) -> Self:
        if self.min_pixels and self.min_pixels > (self.max_pixels or self.size**2):
            raise ValueError(
                f"min_pixels = {self.min_pixels} is more than max_pixels = {self.max_pixels or self.size**2}; lower "
                "min_pixels or raise max_pixels"
            )
        return self


class FromScratch(Settings):
    """Shape of a model that is built from scratch. Widths count units. Layers and heads count modules."""

    section = "model.from_scratch"

    vision_width: int = Field(96, ge=8)
    vision_layers: int = Field(2, ge=1)
    vision_heads: int = Field(4, ge=1)
    vision_position_std: float = Field(
        0.5,
        gt=0,
        description="Initial standard deviation of the vision tower's position embeddings. With CLIP's 0.02, a model "
        "from scratch does not learn place and motion for thousands of steps.",
    )
    text_width: int = Field(128, ge=8)
    text_layers: int = Field(3, ge=1)
    text_heads: int = Field(4, ge=1)
    text_mlp_ratio: float = Field(3.0, gt=0, description="Width of the MLP as a multiple of text_width.")
    vocabulary: int = Field(4096, ge=300, description="Largest number of tokens in the tokenizer that assemble trains.")


class ModelSettings(Settings):
    """The model to train, and its initial weights."""

    section = "model"

    family: Name = "llava-clip"
    base: str = Field(
        SCRATCH,
        description="`scratch` builds the shape of `from_scratch` and trains a tokenizer on the mixture. Any other "
        "value names weights: a published model (`mantis model list`), a key such as models/<fingerprint>, a folder, "
        "or a file:// or s3:// URL. They are a whole model of the family or, with `vision`, the language model alone.",
    )
    vision: str = Field(
        "", description="Name, folder or URL of the CLIP or SigLIP tower to combine with the LLaMA in `base`."
    )
    projector: str = Field("", description="Name, folder or URL of the stage-1 model that gives the projector.")
    prompt: Name = Field("llama3", description="Chat template: `compact`, or one of a family's.")
    image: ImageSettings = ImageSettings()
    from_scratch: FromScratch | None = Field(
        None,
        validate_default=True,
        description="Shape for `base: scratch`; null means the defaults. Every other base has its own shape.",
    )

    @field_validator("from_scratch", mode="before")
    @classmethod
    def _only_with_base_scratch(cls, value: Any, info: ValidationInfo) -> Any:
        base = info.data.get("base")  # absent if it is wrong itself
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
        """The shape of a model from scratch; None if `base` names weights, even if `model_copy` set it."""
        return self.from_scratch if self.base == SCRATCH else None

    def identity(self, *names: str) -> dict[str, Any]:
        """As in `Settings`. A model from published weights has no shape, even if `model_copy` set one."""
        if self.scratch_shape is None and self.from_scratch is not None:
            return self.model_copy(update={"from_scratch": None}).identity(*names)
        return super().identity(*names)

    @model_serializer(mode="wrap")
    def _without_an_absent_shape(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        if self.scratch_shape is None:
            written.pop("from_scratch", None)
        return written
