"""An ablation's runs: an arm for each skill of the recipe, with those before it, and a parent that compares them.

Source: paper, section 4.5: coref, then coref and compare, and so on.
"""

from collections.abc import Mapping

from components.core import progress
from components.core.arms import arms_of, write_arms
from components.core.errors import ConfigError
from components.core.settings import Recipe
from components.core.steps import Run, open_run, read_records
from components.core.store import ObjectStore
from components.core.tracking import Status
from pipelines.finish import close_run, status_of
from pipelines.preflight import keep_recipe, preflight
from pipelines.resolve import resolve_run

FEWEST = 2  # arms that can be compared


def resolve_parent(recipe: str, overrides: Mapping[str, object], name: str) -> tuple[str, Recipe]:
    """Id and recipe of the run that compares the arms; the recipe is that of the last arm, with every skill.

    Raises:
        ConfigError: a field that does not hold, or fewer than two skills.
    """
    run_id, resolved = resolve_run(recipe, overrides, name)
    skills = resolved.data.skills
    if len(skills) < FEWEST:
        raise ConfigError(
            f"data.skills = {list(skills)}: an ablation adds them one by one, and compares.",
            remedy="Name two or more: --set 'data.skills=[coref,compare,reason,temporal]'.",
        )
    return (run_id if name else f"{run_id}-arms"), resolved


def preflight_arms(recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> Run:
    """The parent, checked as any run is, with the recipes of its arms in the store.

    Raises:
        MantisError: recipe, store, source or benchmark will not do; nothing was started.
    """
    parent, resolved = resolve_parent(recipe, overrides, name)
    skills = resolved.data.skills
    arms = {}
    for number, skill in enumerate(skills, 1):
        chosen = {"data.skills": list(skills[:number])}
        arm, its_recipe = resolve_run(recipe, {**overrides, **chosen}, f"{parent}-{skill}")
        arms[arm] = its_recipe
    checked = preflight(recipe, overrides, parent, store_url)
    for arm, its_recipe in arms.items():
        keep_recipe(checked.store, arm, its_recipe)
    write_arms(checked.store, parent, list(arms))
    return checked


def finish_arms(recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> None:
    """Close the ablation that these parameters mean; one that preflight refused left nothing to close."""
    try:
        parent = open_run(resolve_parent(recipe, overrides, name)[0], store_url)
    except ConfigError:
        progress.say("no run was started")
        return
    close_arms(parent)


def close_arms(parent: Run, *, unfinished: Status = Status.FAILED) -> None:
    """Close every arm, then the parent; what did not come to its end is MLflow's `unfinished`."""
    for arm in arms_of(parent.store, parent.id):
        close_run(open_run(arm, parent.store.url), _status(parent.store, arm, unfinished))
    close_run(parent, _status(parent.store, parent.id, unfinished))


def _status(store: ObjectStore, run: str, unfinished: Status) -> Status:
    status = status_of(read_records(store, run))
    return status if status is Status.FINISHED else unfinished
