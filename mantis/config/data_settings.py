"""The section `data` of a recipe: source, subsets and limits of rows."""

from typing import Literal

from pydantic import Field

from mantis.config.field_types import Name
from mantis.config.identity import RUNTIME_ONLY, Settings


class SubsetSettings(Settings):
    """One subset of the mixture."""

    section = "data.subsets"

    name: Name
    cap: int | None = Field(None, ge=1, description="Largest number of rows; the seed draws them.")
    repeat: int = Field(1, ge=1)
    max_images: int | None = Field(None, ge=1, description="Rows of more images go to the ledger.")


Sampling = Literal["none", "sqrt"]


class DataSettings(Settings):
    """The data mixture."""

    section = "data"

    source: str = Field(
        "generated",
        description="`generated` (the demo's tasks), `fetched` (the sets of `mantis data fetch`), a folder, or a "
        "store URL with raw data.",
    )
    generated_conversations: int = Field(20_000, ge=10)
    mixture: Name | None = Field(None, description="A mixture of components/data/mixture/mixtures.yaml.")
    skills: tuple[Name, ...] = Field((), description="Only the mixture's subsets of these skills; empty: all.")
    subsets: tuple[SubsetSettings, ...] = Field(
        (), description="Empty: those of `mixture`; without one, every subset found at the source."
    )
    sampling: Sampling = Field(
        "none", description="`sqrt`: subsets are seen in proportion to the square root of their rows."
    )
    context_length: int = Field(8192, ge=32, description="Tokens per sample, expanded image tokens included.")
    max_turn_characters: int = Field(
        65_536, ge=1, description="Rows with a longer turn go to the ledger: far more than a context holds."
    )
    max_image_pixels: int = Field(64_000_000, ge=1)
    max_image_bytes: int = Field(32_000_000, ge=1)
    workers: int = Field(2, ge=1, json_schema_extra=RUNTIME_ONLY)
    cache_gb: float = Field(
        0.0,
        ge=0,
        description="Of rows that training keeps on each node's disk (MANTIS_CACHE, default ~/.cache/mantis); 0: none. "
        "Pays where an epoch is repeated and the store is slower than training.",
        json_schema_extra=RUNTIME_ONLY,
    )

    def subset(self, name: str) -> SubsetSettings:
        """The settings of the subset `name`; the defaults where the recipe does not list it."""
        named = (settings for settings in self.subsets if settings.name == name)
        return next(named, SubsetSettings(name=name))
