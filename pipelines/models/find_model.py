"""Finds the model that a person names: a run, a registered model, an address of the store, a folder, or a base."""

from pathlib import Path

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.artifacts.store_addresses import key_below
from mantis.config.model_settings import ModelSettings
from mantis.errors import ConfigError, did_you_mean
from mantis.generation.answering_models import ChatModel, FamilyModel, model_in_folder
from mantis.models.weights.catalog import published_base, published_bases
from mantis.models.weights.mirror import mirror_of
from mantis.runs.records import read_record, runs
from mantis.runs.step_runner import open_run
from mantis.store.base import ObjectStore
from pipelines.execution.resolve import published_recipe, resolve_run

REGISTERED = "models:/"  # how MLflow writes the address of a registered model
CONVERT = "convert"  # the step whose result is the model of a run


def find_model(store: ObjectStore, named: str) -> FamilyModel | ChatModel:
    """Find the model that `named` means.

    - Published weights that were fetched, by name.
    - A run that converted a model, by its id.
    - A registered model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`. `NAME` alone is its newest version.
    - A model of the store: its key, its URI, or its folder. It is asked with the prompts of its family.
    - Any other folder or URL of a model that transformers loads.

    Raises:
        ConfigError: there is no such model, or its run is gone.
        InputError: the folder holds no model, or the named weights were not fetched.
        TrackingError: MLflow cannot be reached for a registered model.
    """
    if named in published_bases():
        return ChatModel(manifest=mirror_of(store, published_base(named)))
    if named.startswith(REGISTERED):
        return _in_store(store, named, _registered(store, named.removeprefix(REGISTERED)))
    if "/" not in named and named in runs(store):
        return _in_store(store, named, _of_run(store, named))
    if not named.strip():
        raise ConfigError("MODEL is empty.", remedy="Name a run, a model of the store, or a folder.")
    folder = Path(named).expanduser()
    here = str(folder.resolve()) if folder.is_dir() else named
    stored = next((found for name in (named, here) if (found := _stored(store, name)) is not None), None)
    if stored is not None:
        return _in_store(store, named, stored)
    if folder.is_dir() or "://" in named:
        return model_in_folder(here)
    newest = _newest(store, named) if "/" not in named else None
    if newest is not None:
        return _in_store(store, named, newest)
    raise ConfigError(
        f"{named!r} is no run, no registered model and no model in {store.url}, and it is no folder.",
        remedy=f"{did_you_mean(named, runs(store))}Name the folder of a model, a run, or a model of the store. "
        "`mantis status` lists the runs, and `mantis status RUN` shows the address of a model.",
    )


def _in_store(store: ObjectStore, named: str, stored: Manifest) -> FamilyModel | ChatModel:
    if stored.kind is ArtifactKind.SOURCE:
        return ChatModel(manifest=stored)
    if stored.kind is not ArtifactKind.MODEL:
        raise ConfigError(
            f"{named!r} is a {stored.kind.value}, not a model.",
            remedy="Name the result of a run's step `convert`, which `mantis status RUN` shows.",
        )
    return FamilyModel(manifest=stored, settings=_settings_of(store, stored))


def _of_run(store: ObjectStore, run: str) -> Manifest:
    record = read_record(store, run, CONVERT)
    found = read_manifest(store, record.key) if record is not None and record.key else None
    if found is None:
        raise ConfigError(
            f"The run {run!r} has no model: its step `{CONVERT}` has no result in {store.url}.",
            remedy=f"Finish the run. `mantis status {run}` shows its steps. An ablation has a model in each of its "
            "arms, which are runs of their own.",
        )
    return found


def _registered(store: ObjectStore, named: str) -> Manifest:
    """The model of a registered version: NAME@ALIAS, NAME/VERSION, or NAME for the newest."""
    from mantis.tracking.model_registry import registered_address

    address = registered_address(store, named)
    found = _stored(store, address)
    if found is None:
        raise ConfigError(
            f"{REGISTERED}{named} lies at {address}, which holds no model.",
            remedy="Name the store that holds it with --store. The registry only refers to models.",
        )
    return found


def _newest(store: ObjectStore, name: str) -> Manifest | None:
    from mantis.tracking.model_registry import is_registered

    return _registered(store, name) if is_registered(store, name) else None


def _stored(store: ObjectStore, address: str) -> Manifest | None:
    key = key_below(store.url, address)
    outside = "://" in key or key.startswith("/") or ".." in key.split("/")
    return None if outside else read_manifest(store, key.strip("/"))


def _settings_of(store: ObjectStore, model: Manifest) -> ModelSettings:
    """The settings that write the prompts of a model: those of the run that made it, else of its family's recipe."""
    if model.made_by.run:
        return open_run(model.made_by.run, store.url).recipe.model
    return resolve_run(published_recipe(str(model.summary["family"])), {}, "")[1].model
