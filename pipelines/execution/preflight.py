"""The first step: refuse every problem that a later step would have, before anything is computed."""

import logging
from collections.abc import Mapping, Sequence

from components.data.published.published_sets import warnings
from components.data.step import resolve_subsets
from components.evaluation.step import check_benchmarks
from components.serving.deployment.deployment_request import check_request
from components.serving.step import request_of
from components.training.launch.launcher import launcher
from components.training.step import is_trained
from mantis.artifacts.layout import RECIPE, ArtifactKind, run_key
from mantis.artifacts.manifest import Manifest
from mantis.artifacts.store_addresses import check_store
from mantis.config.recipe import Recipe, read_stored_recipe
from mantis.errors import ConfigError, InputError, TrainingError
from mantis.models.registry import check_family, check_image, check_parts
from mantis.models.weights import catalog
from mantis.models.weights.mirror import mirrors, model_identity
from mantis.runs.lineage import find_artifact
from mantis.runs.step_runner import Run, recorded
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from pipelines.execution.checks.base_rows import check_base_rows
from pipelines.execution.resolve import resolve_run

logger = logging.getLogger(__name__)

CLUSTER_SECONDS = 30.0  # for an API server to answer, which suffices after a restart


def preflight(
    recipe: str,
    overrides: Mapping[str, object],
    name: str,
    store_url: str,
    *,
    model: str = "",
    evaluates: bool = True,
    trained_by: Sequence[Run] = (),
) -> Run:
    """Check the run, and write its resolved recipe to the store.

    The checks depend on the run:

    - A run that evaluates an existing `model` needs that model in the store.
    - Any other run needs the recipe's weights, and a row for every token. Data preparation counts tokens with them.
    - A run that `evaluates` needs its benchmarks.
    - A run that trains needs its launcher.
    - A run that deploys needs an image, and a store that pods reach.
    - If other runs train for it (`trained_by`), their names must be free, too.

    Raises:
        MantisError: recipe, store, source, weights, benchmark or launcher cannot be used. Nothing was started.
    """
    run_id, resolved = resolve_run(recipe, overrides, name, store_url)
    store = open_store(store_url)
    check_store(store)
    run = Run(id=run_id, store=store, recipe=resolved)
    for named in (*trained_by, run):  # before anything is recorded, because the name may belong to another run
        check_name(named)
    keep_recipe(store, run_id, resolved)
    with recorded(run, "preflight"):
        for warning in [
            *warnings(resolve_subsets(run)),
            *catalog.warnings(catalog.named_bases(resolved.model).values()),
        ]:
            logger.warning("%s", warning)
        check_family(resolved.model.family)
        if model:
            find_model(store, model)
        else:
            check_parts(resolved)
            check_image(resolved)
            check_weights(store, resolved)
            check_base_rows(store, resolved.model)
            check_layers(store, resolved)
        if evaluates:
            check_benchmarks(run)
        if evaluates and not model and not all(map(is_trained, trained_by or (run,))):
            check_launcher(run)
        if evaluates and not model and resolved.cluster.deploy:
            check_request(store, request_of(run, {}))
    return run


def find_model(store: ObjectStore, address: str) -> Manifest:
    """Read the manifest of the committed model at `address`: a key such as models/<fingerprint>, or a URI in `store`.

    Raises:
        ConfigError: the URI is in another store, or the artifact is not a model.
        NotFoundError: the store has no such model.
    """
    found = find_artifact(store, address)
    if found.kind is not ArtifactKind.MODEL:
        raise ConfigError(
            f"eval_model = {address!r} is a {found.kind.value}, not a model.",
            remedy="Name the result of a run's step `convert`, which `mantis status RUN` shows.",
        )
    return found


def check_weights(store: ObjectStore, recipe: Recipe) -> None:
    """Check that all base weights of the model are in the store, and belong to its family.

    Raises:
        ConfigError: a name is unknown, or its weights belong to another family.
        InputError: weights were not fetched.
    """
    settings = recipe.model
    named = catalog.named_bases(settings)
    for field, base in named.items():
        if settings.family not in base.families:
            raise ConfigError(
                f"model.{field} = {base.name!r} is for {' and '.join(base.families)}, not {settings.family}.",
                remedy=f"Choose weights for {settings.family}: {', '.join(_bases_for(settings.family))}.",
            )
    missing = [name for name in dict.fromkeys(base.name for base in named.values()) if not mirrors(store, name)]
    if missing:
        raise InputError(
            f"{store.url} has no copy of {', '.join(missing)}, which the section `model` names.",
            remedy=f"Fetch it with `mantis model fetch {' '.join(missing)}`.",
        )
    model_identity(store, settings)
    if settings.vision and not settings.projector and recipe.training.train != ("projector",):
        logger.warning("model.projector is not set: the projector starts from random numbers, as in stage 1")


def check_layers(store: ObjectStore, recipe: Recipe) -> None:
    """Check the names of layers in `training.adapter`. A recipe that names none imports no model.

    Raises:
        ConfigError: the model has no such layer.
        InputError: a configuration of its weights cannot be read.
    """
    adapter = recipe.training.adapter
    if adapter and (adapter.targets or adapter.modules_to_save):
        from components.training.engine.layer_names import (
            check_layer_names,  # imports transformers, which takes seconds
        )

        check_layer_names(store, recipe)


def _bases_for(family: str) -> list[str]:
    return [base.name for base in catalog.published_bases().values() if family in base.families]


def check_launcher(run: Run) -> None:
    """Check that the launcher supports the recipe, and that its cluster answers. Nothing is started.

    Raises:
        ConfigError: the launcher cannot be used. Data preparation, which may take days, would be lost time.
    """
    settings = run.recipe.training
    if settings.launcher != "trainjob":
        launcher(settings)
        return
    from components.training.launch.kubernetes_client import Cluster  # importing the Kubernetes client takes a second
    from components.training.launch.trainjob_spec import train_job

    train_job(run, "0" * 64)
    try:
        Cluster(run.recipe.cluster.namespace, patience=CLUSTER_SECONDS).of_run(run)
    except TrainingError as error:
        raise ConfigError(
            f"training.launcher = 'trainjob': {error.problem}",
            remedy="Set KUBECONFIG to a cluster that can be reached. If another run has the checkpoint, no cluster is "
            "needed: --set training.launcher=local --set training.nodes=1.",
        ) from None


def keep_recipe(store: ObjectStore, run_id: str, recipe: Recipe) -> None:
    """Write the resolved recipe to the key where every task of the run reads it."""
    store.commit(run_key(run_id, RECIPE), recipe.to_yaml().encode(), after=())


def check_name(run: Run) -> None:
    """Check that no run of this name has a recipe with other results.

    Raises:
        ConfigError: such a run exists.
        StoreError: the store cannot be reached.
    """
    if _is_taken(run):
        kept = run.store.uri(run.key("recipe.yaml"))
        raise ConfigError(
            f"mantis_run (--name) = {run.id!r} is the name of a run with another recipe ({kept}).",
            remedy="Choose another name, or omit it: then the name follows from the recipe.",
        )


def _is_taken(run: Run) -> bool:
    key = run.key("recipe.yaml")
    if run.store.stat(key) is None:
        return False
    try:
        kept = read_stored_recipe(run.store.get(key).decode(), origin=run.store.uri(key))
    except ConfigError:  # a recipe of another version
        return True
    return kept.identity() != run.recipe.identity()
