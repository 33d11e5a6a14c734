"""The section `data` of a recipe: source, subsets and limits of rows."""

from typing import Annotated, Literal

from pydantic import Field

from mantis.config.field_types import Name
from mantis.config.identity import RUNTIME_ONLY, Settings

Order = Literal["drawn", "shuffled", "source"]


class SubsetSettings(Settings):
    """One subset of the mixture."""

    section = "data.subsets"

    name: Name
    cap: int | None = Field(None, ge=1, description="Largest number of rows. `order` decides which.")
    order: Order = Field(
        "drawn",
        description="Which rows a cap and a partial pass keep. `drawn`: those that the seed draws. `source`: the first "
        "ones. `shuffled`: the first ones after `shuffle(seed=42)` of the library datasets, as in the official code.",
    )
    repeat: int = Field(1, ge=1)
    max_images: int | None = Field(
        None, ge=1, description="Largest number of images per row. Rows with more go to the ledger."
    )
    held_out: bool = Field(
        False,
        description="Keep the whole subset out of training, e.g. a validation split. `training.evaluate_every` uses "
        "its rows, up to `cap`.",
    )


Sampling = Literal["none", "sqrt"]
Learn = Literal["all", "last"]


class DataSettings(Settings):
    """The data mixture."""

    section = "data"

    source: str = Field(
        "generated",
        description="Raw data: `generated` (the demo's tasks), `fetched` (the sets of `mantis data fetch`), a folder, "
        "or a store URL.",
    )
    format: str | None = Field(
        None,
        description="Form of the raw data, where the one that is found is not meant: that of the files, that of the "
        "rows, or both as `json-lines/messages`. docs/how-to/bring-your-data.md lists them.",
    )
    columns: dict[str, str] = Field(
        {}, description="Keys or columns of the raw rows under other names: `{query: question, images: pictures}`."
    )
    generated_conversations: int = Field(20_000, ge=10)
    mixture: Name | None = Field(None, description="Name of a mixture in components/data/mixture/mixtures.yaml.")
    skills: tuple[Name, ...] = Field(
        (), description="Keep only the mixture's subsets of these skills. Empty keeps all."
    )
    subsets: tuple[SubsetSettings, ...] = Field(
        (), description="Subsets to use. Empty means those of `mixture` or, without one, every subset of the source."
    )
    sampling: Sampling = Field(
        "none", description="`sqrt` draws from each subset in proportion to the square root of its number of rows."
    )
    holdout: int = Field(
        0,
        ge=0,
        description="Number of rows that training never sees. The benchmark `holdout` asks the model about them. "
        "`training.evaluate_every` computes their loss.",
    )
    learn: Learn = Field(
        "all",
        description="`all` learns every answer, `last` only the last one of each sample. A turn with `loss: false` is "
        "never learned.",
    )
    ignore: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="Keys of rows, turns, content parts, images and videos that may hold anything. A row with another "
        "unknown key goes to the ledger.",
    )
    max_dropped: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest share of a subset's rows that may be dropped. Rows that a limit of the recipe leaves out, "
        "and copies of a row, do not count.",
        json_schema_extra=RUNTIME_ONLY,
    )
    context_length: int = Field(
        8192, ge=32, description="Largest number of tokens per sample, with expanded image tokens."
    )
    max_turn_characters: int = Field(
        65_536, ge=1, description="Largest number of characters per turn. Rows with a longer turn go to the ledger."
    )
    max_image_pixels: int = Field(64_000_000, ge=1)
    max_image_bytes: int = Field(32_000_000, ge=1)
    max_frames: int = Field(8, ge=1, description="Largest number of frames that stand for a video, evenly spaced.")
    max_video_bytes: int = Field(256_000_000, ge=1)
    workers: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    cache_gb: float = Field(
        0.0,
        ge=0,
        description="Size in GB of each node's disk cache for rows (MANTIS_CACHE, default ~/.cache/mantis). 0 disables "
        "it. It helps if training repeats epochs and the store is slower than training.",
        json_schema_extra=RUNTIME_ONLY,
    )

    @property
    def holds_out(self) -> bool:
        """Whether the recipe keeps rows out of training, on which a held-out loss can be computed."""
        return self.holdout > 0 or any(settings.held_out for settings in self.subsets)

    def subset(self, name: str) -> SubsetSettings:
        """The settings of the subset `name`; the defaults if the recipe does not list it."""
        named = (settings for settings in self.subsets if settings.name == name)
        return next(named, SubsetSettings(name=name))
