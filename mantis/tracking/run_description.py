"""What MLflow shows of a run from its first second: its parameters, its user, and the code that it runs."""

import getpass
import json
from contextlib import suppress
from dataclasses import dataclass

from mantis.artifacts.manifest import Manifest, code_version, image_digest
from mantis.config.overrides import flat
from mantis.config.recipe import Recipe
from mantis.hashing import fingerprint
from mantis.runs.arms import arms_of
from mantis.runs.step_runner import Run, open_run

PARAMETER_CHARACTERS = 6000  # MLflow's limit
DIGEST_CHARACTERS = 36  # MLflow's limit, of a dataset
NAME_CHARACTERS = 500  # MLflow's limit, of a dataset
ASKED, TRAINED, EVALUATED = "recipe", "training", "evaluation"  # contexts of a dataset


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """An input of a run, as MLflow shows it. The source and the profile are JSON."""

    name: str
    digest: str
    source: str
    context: str
    profile: str | None = None


def asked_dataset(recipe: Recipe) -> DatasetEntry:
    """Describe the data that a recipe asks for, which is known before the first step."""
    names = [subset.name for subset in recipe.data.subsets]
    return DatasetEntry(
        name=("+".join(names) or recipe.data.source)[:NAME_CHARACTERS],
        digest=fingerprint(recipe.data.model_dump(mode="json"))[:DIGEST_CHARACTERS],
        source=json.dumps({"source": recipe.data.source}),
        context=ASKED,
    )


def mixture_dataset(mixture: Manifest) -> DatasetEntry:
    """Describe the mixture that a run trains on."""
    return DatasetEntry(
        name=("+".join(sorted(mixture.inputs)) or "mixture")[:NAME_CHARACTERS],
        digest=mixture.fingerprint[:DIGEST_CHARACTERS],
        source=json.dumps({"key": mixture.key}),
        profile=json.dumps(mixture.summary),
        context=TRAINED,
    )


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
