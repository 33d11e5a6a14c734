"""Register converted models in MLflow: a version with its lineage as tags, and an alias for the newest version.

The store is the source of truth. The registry refers to it, and learns of a model after its proof and commit.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, TrackingError
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.tracking.logged_models import ADDRESS_TAG, FINGERPRINT_TAG, ScoredBenchmark, log_model
from mantis.tracking.mlflow_database import DATABASE
from mantis.tracking.mlflow_runs import TrackedRun, address_in, database_folder, mlflow_client, tracking_uri

logger = logging.getLogger(__name__)

ALIAS = "newest"  # MLflow reserves `latest`
DEFAULT_STORE = "`MANTIS_STORE` names the store. Without it: `.mantis` in the current folder."
MODEL_TAG = "mantis.model_id"
VERSIONS_TAG = "mlflow.modelVersions"
DESCRIPTION_CHARACTERS = 5000  # MLflow's limit in its databases


def register_model(
    tracked: TrackedRun, run: Run, model: Manifest, scored: Sequence[ScoredBenchmark] = ()
) -> str | None:
    """Register `model` under the recipe's name; return its version, or None if MLflow cannot be reached.

    `tracked` is the MLflow run of `run`.

    A registered model keeps its version, and the alias moves to it. If the server knows the model at the address of
    another store, the model gets a new version, because MLflow cannot change an address. The version refers to a
    LoggedModel that `mlflow.pyfunc.load_model` loads, and whose metrics are the scores `scored`.
    """
    from mlflow.exceptions import MlflowException

    try:
        version = _register(tracked, run, model, scored)
    except (MlflowException, OSError) as error:
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
    return str(found.tags.get(ADDRESS_TAG, found.source))


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


def _register(tracked: TrackedRun, run: Run, model: Manifest, scored: Sequence[ScoredBenchmark]) -> str:
    client, name = tracked.client, run.recipe.name
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name, description=run.recipe.description or None)
    logged = log_model(tracked, run, model, scored)
    version = _version(client, name, logged.artifact_location)
    if version is None:
        made = client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=tracked.id,
            tags=_tags(run, model) | {MODEL_TAG: logged.model_id},
            model_id=logged.model_id,
        )
        version = str(made.version)
        # As MLflow's server does it; without a server, its client does not.
        client.set_logged_model_tags(logged.model_id, {VERSIONS_TAG: json.dumps([{"name": name, "version": version}])})
    client.update_model_version(name, version, _description(run, model, version, scored))
    client.set_registered_model_alias(name, ALIAS, version)
    return version


def _version(client: Any, name: str, source: str) -> str | None:
    """Return the version that refers to the files of a LoggedModel."""
    found = client.search_model_versions(f"name = '{name}'")
    return next((str(version.version) for version in found if version.source == source), None)


def _description(run: Run, model: Manifest, version: str, scored: Sequence[ScoredBenchmark]) -> str:
    """The version's description in Markdown: scores, address, a snippet, and the recipe if there is room for it."""
    recipe, address = run.recipe, address_in(run.store, model.key)
    scores = [
        f"| {row['benchmark']} | {row['skill']} | {row['samples']:,} | {row['accuracy']:.1%} | "
        f"{row['low']:.1%} to {row['high']:.1%} |"
        for each in scored
        for row in each.rows
    ]
    head = ["| benchmark | skill | samples | accuracy | 95 % interval |", "|---|---|---|---|---|"]
    lines = [
        f"Run `{run.id}` of the recipe `{recipe.name}`: {recipe.model.family} on {recipe.model.base}.",
        "",
        f"Address: `{address}`",
        "",
        "```python",
        "import mlflow",
        "from pathlib import Path",
        "",
        f'model = mlflow.pyfunc.load_model("models:/{recipe.name}/{version}")',
        'model.predict([{"question": "What differs?", "images": [Path("a.jpg"), Path("b.jpg")]}])',
        "```",
        "",
        *([DEFAULT_STORE, ""] if address == model.key else []),
    ]
    text = "\n".join([*lines, *(head + scores if scores else ["No scores yet."]), ""])
    whole = f"{text}\n```yaml\n{recipe.to_yaml().strip()}\n```\n"
    if len(whole) <= DESCRIPTION_CHARACTERS:
        return whole
    pointer = f"\nRecipe: `{run.key('recipe.yaml')}` in the store.\n"
    if len(text) + len(pointer) <= DESCRIPTION_CHARACTERS:
        return text + pointer
    shown = "\n".join([*lines, f"Scores: {len(scores)} rows, as metrics of the model.", ""])
    return shown + pointer


def _tags(run: Run, model: Manifest) -> dict[str, str]:
    inputs = {f"mantis.input.{name}": item.fingerprint for name, item in model.inputs.items()}
    return inputs | {
        FINGERPRINT_TAG: model.fingerprint,
        ADDRESS_TAG: address_in(run.store, model.key),
        "mantis.run": run.id,
        "mantis.family": run.recipe.model.family,
        "mantis.base": run.recipe.model.base,
        "mantis.code_version": model.made_by.code_version,
    }
