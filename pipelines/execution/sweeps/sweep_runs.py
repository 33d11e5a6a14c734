"""A sweep over a grid: one arm for each combination of field values, and a parent run that compares the arms."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

from rich.console import Console

from components.reporting.step import compare
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.progress import clock_text
from mantis.runs.arms import changes_in_words, write_arms
from mantis.runs.records import read_records
from mantis.runs.step_runner import Run
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import Status
from pipelines.execution.finalize import record_end
from pipelines.execution.local_run import start
from pipelines.execution.preflight import check_name, keep_recipe, preflight
from pipelines.execution.resolve import fitting, resolve_run
from pipelines.execution.supervisor import InterruptedRunError, explain
from pipelines.execution.sweeps.search_space import Over, range_of

FEWEST = 2  # arms that a comparison needs


@dataclass(frozen=True, kw_only=True)
class SweepArm:
    """One combination: the run's id, and its changes of the recipe, from dotted field to YAML value."""

    run: str
    changes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep over fields of `recipe`.

    Attributes:
        recipe: a shipped name, a store URL, or YAML text.
        overrides: changes that all arms share, from dotted field to YAML value.
        parent: the run that compares.
        arms: the combinations in order; the others are compared with the first.
    """

    recipe: str
    overrides: Mapping[str, str]
    parent: Run
    arms: tuple[SweepArm, ...]


def plan_sweep(recipe: str, overrides: Mapping[str, str], over: Over, name: str, store_url: str) -> Sweep:
    """Name the parent and an arm for each combination of the values in `over`. Nothing is written.

    An arm's id follows from its changes alone. So a value that joins the sweep later keeps the arms that exist.

    Raises:
        ConfigError: a field or value is not valid, two arms have the same recipe, or there are fewer than two arms.
    """
    ranges = [field for field, values in over.items() if range_of(field, values) is not None]
    if ranges:
        raise ConfigError(
            f"--over {ranges[0]} is a range, which has no last value.", remedy="Add --trials N, or list the values."
        )
    run_id, resolved = resolve_run(recipe, overrides, name, store_url)
    parent = Run(id=run_id if name else f"{run_id}-sweep", store=open_store(store_url), recipe=resolved)
    arms: dict[str, SweepArm] = {}
    for values in product(*over.values()):
        changes = dict(zip(over, values, strict=True))
        arm_id = arm_of(recipe, overrides, parent, changes)
        if arm_id in arms:
            same = changes_in_words(arms[arm_id].changes)
            raise ConfigError(
                f"--over: {changes_in_words(changes)} and {same} give the same results.",
                remedy="Name each value once, and only fields that decide results.",
            )
        arms[arm_id] = SweepArm(run=arm_id, changes=changes)
    if len(arms) < FEWEST:
        raise ConfigError(
            f"A sweep needs {FEWEST} or more arms, but --over gives {len(arms)}.",
            remedy="Name several values: --over training.learning_rate=1e-5,2e-5.",
        )
    return Sweep(recipe=recipe, overrides=overrides, parent=parent, arms=tuple(arms.values()))


def arm_of(recipe: str, overrides: Mapping[str, str], parent: Run, changes: Mapping[str, str]) -> str:
    """Return the id of the arm with these changes, which follows from its recipe.

    Raises:
        ConfigError: a field or value is not valid, or the id is too long.
    """
    its_recipe = resolve_run(recipe, {**overrides, **changes}, "", parent.store.url)[1]
    return fitting(f"{parent.id}-{fingerprint(its_recipe.identity())[:6]}", f"mantis_run (--name) = {parent.id!r}")


def run_sweep(sweep: Sweep, console: Console, *, ended: Callable[[Run], None]) -> Manifest:
    """Check all arms, run those that have no report yet one after another, and compare all of them.

    `ended` is called with each arm at its end, also if a step failed. Started again, it repeats nothing.

    Raises:
        MantisError: a recipe cannot be run, or a step failed. The error of an arm names the arm's step.
        InterruptedRunError: the user pressed Ctrl-C. The error lists the saved results.
    """
    prepare_sweep(sweep)
    parent, names = sweep.parent, [arm.run for arm in sweep.arms]
    with end_recorded(parent):
        for number, arm in enumerate(sweep.arms):
            left = in_words_left(parent.store, names[:number], len(names) - number)
            console.print(
                f"arm {number + 1} of {len(names)}: {changes_in_words(arm.changes)}{left}", soft_wrap=True, markup=False
            )
            run_arm(sweep.recipe, {**sweep.overrides, **arm.changes}, arm.run, parent.store.url, console, ended=ended)
        return compare(parent)


def prepare_sweep(sweep: Sweep) -> Run:
    """Check all arms, write the recipe of the parent and its ties to the arms, and return the parent.

    Raises:
        MantisError: a recipe cannot be run, or a name belongs to another run. Nothing was started.
    """
    parent, store = sweep.parent, sweep.parent.store
    check_name(parent)
    for arm in sweep.arms:
        preflight(sweep.recipe, {**sweep.overrides, **arm.changes}, arm.run, store.url)
    keep_recipe(store, parent.id, parent.recipe)
    write_arms(store, parent.id, [arm.run for arm in sweep.arms], {arm.run: arm.changes for arm in sweep.arms})
    return parent


def run_arm(
    recipe: str,
    changes: Mapping[str, str],
    arm: str,
    store_url: str,
    console: Console,
    *,
    ended: Callable[[Run], None],
) -> None:
    """Run an arm to its end, unless it has its report already."""
    if explain(read_records(open_store(store_url), arm)) == "done":
        console.print(f"run {arm} has its report already", soft_wrap=True, markup=False)
        return
    start(recipe, changes, arm, store_url, console, "instruction-tuning", ended=ended)


@contextmanager
def end_recorded(parent: Run) -> Iterator[None]:
    """Write the summary of the parent at its end, whether it finished, failed, or was stopped."""
    status = Status.FAILED
    try:
        yield
        status = Status.FINISHED
    except InterruptedRunError:
        status = Status.KILLED
        raise
    finally:
        record_end(parent, status)


def in_words_left(store: ObjectStore, before: list[str], left: int) -> str:
    """The time that `left` arms take if they take as long as those before; empty before the first has ended."""
    if not before:
        return ""
    seconds = [sum(record.seconds for record in read_records(store, arm)) for arm in before]
    return f", about {clock_text(left * sum(seconds) / len(seconds))} left"
