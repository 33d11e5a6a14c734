"""A converted model in MLflow's registry: a version with its lineage as tags, and the alias of the newest.

The store is the truth; the registry points to it. It is told after the manifest was committed, so after the proof.
"""

import logging
from typing import Any

from mantis.artifacts.manifest import Manifest
from mantis.errors import TrackingError
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import address_in, open_tracked_run

logger = logging.getLogger(__name__)

ALIAS = "newest"  # `latest` is a word of MLflow's own
FINGERPRINT_TAG = "mantis.fingerprint"


def register_model(run: Run, model: Manifest) -> str | None:
    """Register `model` under the recipe's name; returns the version, None while MLflow is away.

    A model that is registered already keeps its version, and the alias goes to it. It gets another version where the
    server knows it under the address of another store: this one was moved, or the model is in both.
    """
    from mlflow.exceptions import MlflowException

    try:
        version = _register(run, model)
    except (TrackingError, MlflowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        logger.warning("The model is not registered in MLflow: %s The same command tries again.", reason)
        return None
    logger.info("Registered in MLflow as %s version %s", run.recipe.name, version)
    return version


def _register(run: Run, model: Manifest) -> str:
    tracked = open_tracked_run(run)
    client, name = tracked.client, run.recipe.name
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name, description=run.recipe.description or None)
    source = address_in(run.store, model.key)
    version = _version(client, name, model.fingerprint, source)
    if version is None:
        made = client.create_model_version(name, source=source, run_id=tracked.id, tags=_tags(run, model))
        version = str(made.version)
    client.set_registered_model_alias(name, ALIAS, version)
    return version


def _version(client: Any, name: str, fingerprint: str, source: str) -> str | None:
    """The version that is this model already, at this address: MLflow cannot change the address of a version."""
    found = client.search_model_versions(f"name = '{name}' and tag.`{FINGERPRINT_TAG}` = '{fingerprint}'")
    return next((str(version.version) for version in found if version.source == source), None)


def _tags(run: Run, model: Manifest) -> dict[str, str]:
    inputs = {f"mantis.input.{name}": item.fingerprint for name, item in model.inputs.items()}
    return inputs | {
        FINGERPRINT_TAG: model.fingerprint,
        "mantis.run": run.id,
        "mantis.family": run.recipe.model.family,
        "mantis.base": run.recipe.model.base,
        "mantis.code_version": model.made_by.code_version,
    }
