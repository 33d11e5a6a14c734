"""Register converted models in MLflow: a version with its lineage as tags, and an alias for the newest version.

The store is the source of truth. The registry refers to it, and learns of a model after its proof and commit.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, TrackingError
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.tracking.mlflow_database import DATABASE
from mantis.tracking.mlflow_runs import (
    address_in,
    database_folder,
    mlflow_client,
    open_tracked_run,
    tracking_uri,
)

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


def is_registered(store: ObjectStore, name: str) -> bool:
    """Whether MLflow knows a registered model of this name. False if there is no MLflow database and no server.

    Raises:
        TrackingError: the server refuses, or cannot be reached.
    """
    folder = database_folder(store)
    if folder is not None and not (folder / DATABASE).is_file():
        return False
    with _answers(store):
        return bool(mlflow_client(store).search_registered_models(filter_string=f"name = '{_quotable(name)}'"))


def registered_address(store: ObjectStore, named: str) -> str:
    """The address of a registered version, as `register_model` gave it: a key of `store`, or a URI.

    `named` is NAME@ALIAS, NAME/VERSION, or NAME for its version with the alias `newest`.

    Raises:
        ConfigError: there is no such version.
        TrackingError: the server refuses, or cannot be reached.
    """
    name, _, version = named.partition("/")
    name, _, alias = name.partition("@")
    if not is_registered(store, name):
        raise ConfigError(
            f"No registered model has the name {name!r}.",
            remedy=f"The MLflow at {tracking_uri(store)} was asked. `mantis ui` shows its models.",
        )
    with _answers(store):
        client = mlflow_client(store)
        versions = client.search_model_versions(f"name = '{_quotable(name)}'")
        wanted = version or client.get_registered_model(name).aliases.get(alias or ALIAS)
        found = next((each for each in versions if str(each.version) == str(wanted)), None)
    if found is None:
        asked = f"version {version}" if version else f"version with the alias {alias or ALIAS!r}"
        known = ", ".join(sorted((str(each.version) for each in versions), key=int))
        raise ConfigError(f"The registered model {name!r} has no {asked}.", remedy=f"Versions: {known or 'none'}.")
    return str(found.source)


@contextmanager
def _answers(store: ObjectStore) -> Iterator[None]:
    """Turn errors of MLflow's client into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {tracking_uri(store)} refuses: {str(error).splitlines()[0]}",
            remedy="Check MLFLOW_TRACKING_URI.",
        ) from None


def _quotable(name: str) -> str:
    """The name for a filter of MLflow, which has no escape for a quote: a name with one is no registered model's."""
    return name.replace("'", "")


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
