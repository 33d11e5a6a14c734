"""The runs of an ablation: one arm for each skill of the recipe, and a parent run that compares the arms.

Each arm trains on its skill and the skills before it: coref, then coref and compare, and so on (paper, section 4.5).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mantis.artifacts.layout import RECIPE, run_key
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError
from mantis.runs.arms import arms_of, write_arms
from mantis.runs.records import read_records
from mantis.runs.step_runner import Run, open_run
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import Status
from pipelines.execution.finalize import NOT_STARTED, check_ours, delete_jobs, record_end, started, status_of
from pipelines.execution.preflight import keep_recipe, preflight
from pipelines.execution.resolve import fitting, resolve_run

logger = logging.getLogger(__name__)

FEWEST = 2  # arms that an ablation needs
SKILLS = "data.skills"  # the field in which its arms differ


def resolve_parent(recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> tuple[str, Recipe]:
    """Return id and recipe of the parent run. The recipe is that of the last arm, with every skill.

    Raises:
        ConfigError: a field is not valid, the recipe has fewer than two skills, or the name is too long for the arms.
    """
    run_id, resolved = resolve_run(recipe, overrides, name, store_url)
    skills = resolved.data.skills
    if len(skills) < FEWEST:
        raise ConfigError(
            f"data.skills = {list(skills)}: an ablation adds skills one by one, and needs two or more.",
            remedy="List at least two skills: --set 'data.skills=[coref,compare,reason,temporal]'.",
        )
    parent = run_id if name else f"{run_id}-arms"
    fitting(
        _arm(parent, max(skills, key=len)), f"mantis_run (--name) = {name!r}" if name else f"name = {resolved.name!r}"
    )
    return parent, resolved


def preflight_arms(recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> Run:
    """Check the parent like any run, and write the recipes of its arms to the store.

    Raises:
        MantisError: recipe, store, source or benchmark cannot be used. Nothing was started.
    """
    parent, resolved = resolve_parent(recipe, overrides, name, store_url)
    arms = _arms(recipe, overrides, Run(id=parent, store=open_store(store_url), recipe=resolved))
    checked = preflight(recipe, overrides, parent, store_url, trained_by=arms)
    for arm in arms:
        keep_recipe(checked.store, arm.id, arm.recipe)
    changes = {arm.id: {SKILLS: f"[{', '.join(arm.recipe.data.skills)}]"} for arm in arms}
    write_arms(checked.store, parent, list(changes), changes)
    return checked


def _arms(recipe: str, overrides: Mapping[str, object], parent: Run) -> list[Run]:
    """Return the runs of the arms for these parameters, each with one more skill."""
    arms = []
    skills = parent.recipe.data.skills
    for number, skill in enumerate(skills, 1):
        chosen = {SKILLS: list(skills[:number])}
        run_id, its_recipe = resolve_run(recipe, {**overrides, **chosen}, _arm(parent.id, skill), parent.store.url)
        arms.append(Run(id=run_id, store=parent.store, recipe=its_recipe, parent=parent.id))
    return arms


def finish_arms(recipe: str, overrides: Mapping[str, object], name: str, store_url: str) -> None:
    """Close the ablation of these parameters. An ablation that preflight refused has nothing to close."""

    def planned() -> tuple[Run, list[Run]]:
        parent_id, resolved = resolve_parent(recipe, overrides, name, store_url)
        named = Run(id=parent_id, store=open_store(store_url), recipe=resolved)
        return named, _arms(recipe, overrides, named)

    close_planned(planned)


def close_planned(planned: Callable[[], tuple[Run, Sequence[Run]]]) -> None:
    """Delete the remaining TrainJobs of the arms, then close the arms and their parent, which `planned` returns.

    What preflight refused has nothing to close.
    """
    try:
        named, arms = planned()
        for run in (named, *arms):
            check_ours(run)
    except ConfigError:
        logger.warning(NOT_STARTED)
        return
    for arm in arms:
        delete_jobs(arm)
    if parent := started(named):
        _record_ends(parent, [arm.id for arm in arms])


def close_arms(parent: Run) -> None:
    """Delete remaining TrainJobs, then close every arm, then the parent."""
    for skill in parent.recipe.data.skills:
        delete_jobs(replace(parent, id=_arm(parent.id, skill), parent=parent.id))
    _record_ends(parent, arms_of(parent.store, parent.id))


def _record_ends(parent: Run, arms: Sequence[str]) -> None:
    """Record the end of every arm in `arms` that began, and of the parent, which failed if an arm failed.

    A search compares its complete trials only, so `arms` may hold more arms than the parent compares.
    If the end of one arm cannot be recorded, the others are closed nevertheless. Then the first such error is raised.
    """
    ends, problems = [], []
    for arm in dict.fromkeys(arms):
        try:
            if parent.store.stat(run_key(arm, RECIPE)) is None:
                continue
            ends.append(status_of(read_records(parent.store, arm)))
            record_end(open_run(arm, parent.store.url), ends[-1])
        except Exception as error:
            problems.append(error)
    own = status_of(read_records(parent.store, parent.id))
    record_end(parent, Status.FAILED if Status.FAILED in ends else own)
    if problems:
        raise problems[0]


def _arm(parent: str, skill: str) -> str:
    """Return the id of the arm that adds `skill`. It finds the arm's TrainJob even if the store cannot be reached."""
    return f"{parent}-{skill}"
