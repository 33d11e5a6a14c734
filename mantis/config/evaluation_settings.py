"""The section `evaluation` of a recipe: benchmarks, decoding and scoring."""

from typing import Literal

from pydantic import Field

from mantis.config.field_types import Name
from mantis.config.identity import RUNTIME_ONLY, Settings


class EvaluationSettings(Settings):
    """Benchmarks and how they are answered and scored."""

    section = "evaluation"

    source: str = Field(
        "generated",
        description="`generated`, `mirror` (of `mantis benchmark fetch`, in the store), a folder or a store URL.",
    )
    benchmarks: tuple[Name, ...] = ()
    prompt: Name = Field("mantis", description="A prompt profile of the benchmarks' files.")
    samples_per_skill: int = Field(500, ge=1, description="Held-out instances per skill of generated benchmarks.")
    decoding: Name = "greedy-short"
    scoring: Literal["official", "strict"] = "official"
    controls: tuple[Literal["blind", "shuffled"], ...] = ("blind", "shuffled")
    layout: Literal["sequence", "merge"] = Field(
        "sequence", description="Several pictures in their places, or side by side as one, for models that take one."
    )
    reference: str = Field(
        "",
        description="The model of the published tables that the scores are held to, e.g. Mantis-CLIP.",
        json_schema_extra=RUNTIME_ONLY,
    )
    batch_tokens: int = Field(
        32_768, ge=32, description="Positions per batch, padding and answers included.", json_schema_extra=RUNTIME_ONLY
    )
    batch_patches: int = Field(65_536, ge=1, description="Image patches per batch.", json_schema_extra=RUNTIME_ONLY)
    processes: int = Field(
        0,
        ge=0,
        description="That answer at the same time; 0: one per GPU, one on a CPU.",
        json_schema_extra=RUNTIME_ONLY,
    )
