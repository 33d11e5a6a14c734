"""Register converted models in MLflow: a version with its lineage as tags, and an alias for the newest version.

The store is the source of truth. The registry refers to it, and learns of a model after its proof and commit.
"""

import logging
from typing import Any

from mantis.artifacts.manifest import Manifest
from mantis.errors import TrackingError
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import address_in, open_tracked_run

logger = logging.getLogger(__name__)

ALIAS = "newest"  # MLflow reserves `latest`
FINGERPRINT_TAG = "mantis.fingerprint"


def register_model(run: Run, model: Manifest) -> str | None:
    """Register `model` under the recipe's name; return its version, or None if MLflow cannot be reached.

    A registered model keeps its version, and the alias moves to it. If the server knows the model at the address of
    another store, the model gets a new version, because MLflow cannot change an address.
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
    """Return the existing version of this model at this address; MLflow cannot change the address of a version."""
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
