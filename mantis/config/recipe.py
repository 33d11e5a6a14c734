"""A recipe: all settings of a run, as one frozen, validated value. Each section has its own module beside this one.

Fields marked `RUNTIME_ONLY` decide how a result is computed, not its content (launcher, processes, checkpoint
interval). They stay out of fingerprints, so a change of them reuses the results in the store. identity.py defines how
the other fields enter.
"""

import logging
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from mantis.config.bounded_yaml import parse_yaml
from mantis.config.cluster_settings import ClusterSettings, TrackingSettings
from mantis.config.data_settings import DataSettings
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.config.field_types import Name
from mantis.config.identity import RUNTIME_ONLY, Settings
from mantis.config.migrations import migrate
from mantis.config.model_settings import ModelSettings
from mantis.config.overrides import set_field
from mantis.config.training_settings import ConversionSettings, TrainingSettings
from mantis.config.validation_errors import explain, remedy, shortened
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.schema_versions import CURRENT, FIELD, Form, check_version

logger = logging.getLogger(__name__)


class Recipe(Settings):
    """The settings of a whole run. `identity()` leaves out the fields that do not decide results."""

    schema_version: int = Field(
        CURRENT[Form.RECIPE], description="Version of this form.", json_schema_extra=RUNTIME_ONLY
    )
    name: Name
    description: str = ""
    seed: int = Field(0, ge=0, description="Seed of generated data, of caps, and of weights from scratch.")
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    conversion: ConversionSettings = ConversionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()
    cluster: ClusterSettings = Field(ClusterSettings(), json_schema_extra=RUNTIME_ONLY)

    @model_validator(mode="after")
    def _no_subset_twice(self) -> Self:
        names = [subset.name for subset in self.data.subsets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data.subsets names {', '.join(twice)} twice; use `repeat` to visit rows more than once")
        if self.data.subsets and all(subset.held_out for subset in self.data.subsets):
            raise ValueError("data.subsets holds out every subset; at least one must stay for training")
        return self

    @model_validator(mode="after")
    def _held_out_rows_are_there(self) -> Self:
        if self.training.evaluate_every and not self.data.holds_out:
            raise ValueError(
                "training.evaluate_every needs held-out rows: set data.holdout, or held_out: true for a subset"
            )
        if self.conversion.checkpoint == "best" and not self.training.keep_best:
            raise ValueError("conversion.checkpoint = best needs training.keep_best = true")
        return self

    def to_yaml(self) -> str:
        """The resolved recipe as YAML, with every field."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def default_run_id(self) -> str:
        """The run id of this resolved recipe, always the same: `<name>-<8 hex digits>`."""
        return f"{self.name}-{fingerprint(self.identity())[:8]}"


def parse_recipe(text: str, *, origin: str, overrides: dict[str, str] | None = None) -> Recipe:
    """Parse a recipe that a user wrote, with `overrides` from dotted names to YAML values.

    Raises:
        ConfigError: the text is not YAML, or a field is unknown or has a wrong value. The error names field and value.
        VersionError: the recipe has a later schema version than this program.
    """
    raw = _raw_recipe(text, origin)
    for key, value in (overrides or {}).items():
        set_field(raw, key, value)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, origin), remedy=remedy(error, Recipe)) from None


def read_stored_recipe(text: str, *, origin: str) -> Recipe:
    """Read a recipe that this program or an earlier version of it stored.

    Renamed fields get their present names. A field that no longer exists is left out, and a log line names it.

    Raises:
        ConfigError: the text is not YAML, or a field has a value that is no longer valid.
        VersionError: a later version of this program stored it.
    """
    raw = _raw_recipe(text, origin)
    migrate(raw, origin=origin)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        unknown = [item for item in error.errors() if item["type"] == "extra_forbidden"]
        for item in unknown:
            dotted = ".".join(map(str, item["loc"]))
            logger.warning(
                "%s: %s = %s is not a field any more and is ignored", origin, dotted, shortened(item["input"])
            )
            _remove(raw, item["loc"])
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            explain(error, origin), remedy="Correct the stored recipe, or start a new run from it."
        ) from None


def load_recipe_file(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Load a recipe from a YAML file. It raises the errors of `parse_recipe`."""
    return parse_recipe(path.read_text(), origin=str(path), overrides=overrides)


def _raw_recipe(text: str, origin: str) -> dict[str, Any]:
    """Parse a recipe's YAML to a mapping, and set its schema version to the current one."""
    try:
        raw = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{origin} is not YAML: {error}.", remedy="Correct the file, or start from a shipped recipe."
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{origin} holds {type(raw).__name__}, not a mapping of sections.", remedy="Start from a shipped recipe."
        )
    check_version(Form.RECIPE, raw, origin)
    return {**raw, FIELD: CURRENT[Form.RECIPE]}


def _remove(raw: Any, path: tuple[int | str, ...]) -> None:
    *parents, last = path
    for parent in parents:
        raw = raw[parent]
    del raw[last]
