"""The section `evaluation` of a recipe: benchmarks, and the profile that asks them."""

from typing import Any, Literal

from pydantic import Field, field_validator

from mantis.config.field_types import Name
from mantis.config.identity import RUNTIME_ONLY, Settings

DEFAULT_PROFILE = "direct"  # of components/evaluation/profiles/profiles.yaml


class EvaluationSettings(Settings):
    """The benchmarks, and how responses are generated and scored."""

    section = "evaluation"

    source: str = Field(
        "generated",
        description="Samples: `generated`, `mirror` (the store's copy, see `mantis benchmark fetch`), a folder or a "
        "store URL.",
    )
    benchmarks: tuple[Name, ...] = Field(
        (), description="Names of benchmarks. `mantis` commands also take YAML files, e.g. [./mine.yaml]."
    )
    own_benchmarks: dict[Name, dict[str, Any]] = Field(
        {}, description="The content of each YAML file that `benchmarks` named. `mantis` fills it in."
    )
    profile: Name = Field(
        DEFAULT_PROFILE,
        description="How every benchmark is asked: `direct`, `official` or `lmms-eval`. A profile joins prompt, image "
        "layout, stop tokens, token limit and rule.",
    )
    samples_per_skill: int = Field(500, ge=1, description="Held-out instances per skill of generated benchmarks.")
    limit: int | None = Field(
        None,
        ge=1,
        description="Samples of each benchmark, drawn in strata: every skill is in them. The scores call them a "
        "sample. null means all samples.",
    )
    scoring: Literal["official", "strict"] = Field(
        "official",
        description="Score of the headline: the rule of the profile, or `strict`. Both are always computed.",
    )
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
    margin: float = Field(
        3.0,
        gt=0,
        description="Percentage points around a published figure. A score reproduces the figure if its whole 95 % "
        "interval lies within them.",
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

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _no_file(cls, value: Any) -> Any:
        """Refuse a file: it may differ, or be missing, where another step of the run reads the recipe."""
        for named in value if isinstance(value, list | tuple) else ():
            if isinstance(named, str) and is_benchmark_file(named):
                raise ValueError(
                    f"{named!r} is a file. Start the run with a `mantis` command, which writes it into the recipe, or "
                    "put its content into evaluation.own_benchmarks"
                )
        return value


def is_benchmark_file(named: str) -> bool:
    """Whether an entry of `evaluation.benchmarks` is a YAML file: a path or a store URL, not a name."""
    return "/" in named or named.endswith((".yaml", ".yml"))
