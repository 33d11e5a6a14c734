"""What MLflow shows of a run from its first second: its parameters, its user, and the code that it runs."""

import getpass
from contextlib import suppress

from mantis.artifacts.manifest import code_version, image_digest
from mantis.config.overrides import flat
from mantis.config.recipe import Recipe
from mantis.runs.arms import arms_of
from mantis.runs.step_runner import Run, open_run

PARAMETER_CHARACTERS = 6000  # MLflow's limit


def parameters_of(run: Run) -> dict[str, str]:
    """Return the MLflow parameters of a run. A run that compares others has those that all of them share."""
    arms = arms_of(run.store, run.id)
    if not arms:
        return flat_recipe(run.recipe)
    first, *others = (flat_recipe(open_run(arm, run.store.url).recipe) for arm in arms)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def flat_recipe(recipe: Recipe) -> dict[str, str]:
    """Flatten a resolved recipe to MLflow parameters: dotted names, with values as text."""
    fields = flat(recipe.model_dump(mode="json"))
    return {name: str(value)[:PARAMETER_CHARACTERS] for name, value in fields.items()}


def source_tags(run: Run) -> dict[str, str]:
    """Return the tags that say who runs what: among them MLflow's own, for its columns User, Source and Version."""
    version = code_version()
    tags = {
        "mlflow.source.name": f"mantis {run.recipe.name}",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": version,
        "code_version": version,
        "image_digest": image_digest(),
        "recipe": run.recipe.name,
    }
    with suppress(KeyError, OSError):  # in a container, the user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
