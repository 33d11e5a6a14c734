"""Resolve parameters to a recipe and a run id, as a pure function, so that every task gets the same result."""

import re
from collections.abc import Mapping
from importlib import resources

import yaml

from components.data.mixture.epochs import written_out
from mantis.artifacts.store_addresses import key_below
from mantis.config.model_settings import SCRATCH
from mantis.config.recipe import Recipe, parse_recipe
from mantis.errors import ConfigError, did_you_mean
from mantis.hashing import fingerprint
from mantis.models.weights.catalog import FIELDS
from mantis.store.opening import open_store

# A run's name is used unchanged as a folder of the store and as the value of a Kubernetes label.
LONGEST = 63
RUN_NAME = re.compile(rf"(?=.{{1,{LONGEST}}}\Z)[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
ALLOWED = f"at most {LONGEST} letters, digits, `-`, `_` and `.`, with a letter or digit at the begin and end"


def shipped_recipes() -> list[str]:
    """List the names of the recipes in pipelines/recipes."""
    folder = resources.files("pipelines") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def resolve_run(recipe: str, overrides: Mapping[str, object], name: str, store_url: str = "") -> tuple[str, Recipe]:
    """Return run id and resolved recipe of `recipe`: a shipped name, a store URL, or YAML text.

    Mixtures are written out as subsets. A model of the store at `store_url` is named by its key, so that the run stays
    the same when the store is copied or moved.

    Raises:
        ConfigError: the recipe does not exist, a field is not valid, or the name is not allowed.
    """
    if name and not RUN_NAME.fullmatch(name):
        raise ConfigError(f"mantis_run (--name) = {name!r} is not a valid name.", remedy=f"Use {ALLOWED}.")
    text, origin = recipe_text(recipe)
    parsed = parse_recipe(text, origin=origin, overrides={key: _as_yaml(value) for key, value in overrides.items()})
    resolved = written_out(parsed)
    if store_url:
        resolved = _with_keys(resolved, store_url)
    return name or fitting(resolved.default_run_id(), f"name = {resolved.name!r}"), resolved


def _with_keys(recipe: Recipe, store_url: str) -> Recipe:
    addresses = {field: getattr(recipe.model, field) for field in FIELDS}
    keys = {field: key_below(store_url, address) for field, address in addresses.items()}
    if keys == addresses:
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=keys)})


def fitting(run_id: str, made_of: str) -> str:
    """Return a run's name if it is short enough; `made_of` names the field and value that it was made from.

    Raises:
        ConfigError: the name is too long.
    """
    if len(run_id) > LONGEST:
        raise ConfigError(
            f"{made_of} is too long: the run {run_id} would have a name of {len(run_id)} characters, at most {LONGEST} "
            "are allowed.",
            remedy=f"Shorten it by {len(run_id) - LONGEST} characters, or choose a name with --name (mantis_run).",
        )
    return run_id


def published_recipe(family: str) -> str:
    """Return the shipped recipe that trains a complete model of this family from published weights.

    Raises:
        ConfigError: no shipped recipe does.
    """
    for name in shipped_recipes():
        recipe = resolve_run(name, {}, "")[1]
        whole = not recipe.training.adapter and {"text", "cross_attention"} & set(recipe.training.train)
        if recipe.model.family == family and recipe.model.base != SCRATCH and whole:
            return name
    raise ConfigError(
        f"No shipped recipe trains a model of family {family!r}.", remedy="Choose a recipe with --recipe."
    )


def name_of(recipe: str, overrides: Mapping[str, object], name: str, model: str, store_url: str) -> str:
    """Return the run's name. For a run that evaluates an existing `model`, it follows from recipe and model.

    The model is identified by its key in the store at `store_url`, in whatever form it was given. The recipe's own name
    belongs to the run that trains, whose records and report must stay.
    """
    if name or not model:
        return name
    resolved = resolve_run(recipe, overrides, "", store_url)[1]
    made = f"{resolved.name}-eval-{fingerprint([resolved.identity(), key_below(store_url, model)])[:8]}"
    return fitting(made, f"name = {resolved.name!r}")


def recipe_text(recipe: str) -> tuple[str, str]:
    """The YAML text of a recipe, a shipped name, a store URL or text, and a description of its origin.

    Raises:
        ConfigError: no such recipe is shipped.
    """
    if "\n" in recipe or recipe.lstrip().startswith("{"):
        return recipe, "the recipe's text"
    if "://" in recipe:
        folder, _, file = recipe.rpartition("/")
        return open_store(folder).get(file).decode(), recipe
    if recipe not in shipped_recipes():
        shipped = shipped_recipes()
        raise ConfigError(
            f"recipe = {recipe!r} is not shipped.",
            remedy=f"{did_you_mean(recipe, shipped)}Choose one of {', '.join(shipped)}, a file of yours "
            "(mantis run FILE.yaml), or a store URL.",
        )
    return (resources.files("pipelines") / "recipes" / f"{recipe}.yaml").read_text(), f"recipe {recipe}"


def _as_yaml(value: object) -> str:
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n")
