"""The section `evaluation` of a recipe: benchmarks, decoding and scoring."""

from typing import Literal

from pydantic import Field

from mantis.config.field_types import Name
from mantis.config.identity import RUNTIME_ONLY, Settings


class EvaluationSettings(Settings):
    """The benchmarks, and how responses are generated and scored."""

    section = "evaluation"

    source: str = Field(
        "generated",
        description="Samples: `generated`, `mirror` (the store's copy, see `mantis benchmark fetch`), a folder or a "
        "store URL.",
    )
    benchmarks: tuple[Name, ...] = ()
    prompt: Name = Field("mantis", description="Prompt profile, by its name in the benchmarks' files.")
    samples_per_skill: int = Field(500, ge=1, description="Held-out instances per skill of generated benchmarks.")
    decoding: Name = "greedy-short"
    scoring: Literal["official", "strict"] = "official"
    controls: tuple[Literal["blind", "shuffled"], ...] = ("blind", "shuffled")
    layout: Literal["sequence", "merge"] = Field(
        "sequence",
        description="`sequence` shows images in their places. `merge` puts them side by side into one image.",
    )
    reference: str = Field(
        "",
        description="Model of the published tables to compare the scores with, e.g. Mantis-CLIP.",
        json_schema_extra=RUNTIME_ONLY,
    )
    batch_tokens: int = Field(
        32_768, ge=32, description="Tokens per batch, with padding and answers.", json_schema_extra=RUNTIME_ONLY
    )
    batch_patches: int = Field(65_536, ge=1, description="Image patches per batch.", json_schema_extra=RUNTIME_ONLY)
    processes: int = Field(
        0,
        ge=0,
        description="Processes that generate responses. 0 means one per GPU, or one on the CPU.",
        json_schema_extra=RUNTIME_ONLY,
    )
