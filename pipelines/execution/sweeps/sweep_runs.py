"""The runs of a sweep: one arm for each combination of field values, and a parent run that compares the arms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from rich.console import Console

from components.reporting.step import compare
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError
from mantis.hashing import fingerprint
from mantis.runs.arms import write_arms
from mantis.runs.records import read_records
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store
from mantis.tracking.mlflow_runs import Status
from pipelines.execution.finalize import record_end
from pipelines.execution.local_run import start
from pipelines.execution.preflight import check_name, keep_recipe, preflight
from pipelines.execution.resolve import fitting, resolve_run
from pipelines.execution.supervisor import InterruptedRunError, explain

FEWEST = 2  # arms that a comparison needs
OPENING, CLOSING = "[{(", "]})"
QUOTES = "'\""


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


def plan_sweep(
    recipe: str, overrides: Mapping[str, str], over: Mapping[str, Sequence[str]], name: str, store_url: str
) -> Sweep:
    """Name the parent and an arm for each combination of the values in `over`. Nothing is written.

    An arm's id follows from its changes alone. So a value that joins the sweep later keeps the arms that exist.

    Raises:
        ConfigError: a field or value is not valid, two arms have the same recipe, or there are fewer than two arms.
    """
    run_id, resolved = resolve_run(recipe, overrides, name, store_url)
    parent = Run(id=run_id if name else f"{run_id}-sweep", store=open_store(store_url), recipe=resolved)
    arms: dict[str, SweepArm] = {}
    for values in product(*over.values()):
        changes = dict(zip(over, values, strict=True))
        its_recipe = resolve_run(recipe, {**overrides, **changes}, "", store_url)[1]
        arm_id = fitting(f"{parent.id}-{fingerprint(its_recipe.identity())[:6]}", f"run_name (--name) = {parent.id!r}")
        if arm_id in arms:
            raise ConfigError(
                f"--over: {_in_words(changes)} and {_in_words(arms[arm_id].changes)} give the same results.",
                remedy="Name each value once, and only fields that decide results.",
            )
        arms[arm_id] = SweepArm(run=arm_id, changes=changes)
    if len(arms) < FEWEST:
        raise ConfigError(
            f"A sweep needs {FEWEST} or more arms, but --over gives {len(arms)}.",
            remedy="Name several values: --over training.learning_rate=1e-5,2e-5.",
        )
    return Sweep(recipe=recipe, overrides=overrides, parent=parent, arms=tuple(arms.values()))


def parse_over(given: Sequence[str]) -> dict[str, list[str]]:
    """Read `FIELD=VALUE,VALUE,...`. A comma within brackets or quotes belongs to its value.

    Raises:
        ConfigError: a text has no `=` or an empty value, or a field is named twice.
    """
    over: dict[str, list[str]] = {}
    for text in given:
        field, equals, listed = text.partition("=")
        values = [value.strip() for value in _split(listed)]
        if not equals or not field.strip() or not all(values):
            raise ConfigError(f"--over {text!r} is no list of values.", remedy="Write --over FIELD=VALUE,VALUE.")
        if field.strip() in over:
            raise ConfigError(f"--over names {field.strip()} twice.", remedy="Write all its values in one --over.")
        over[field.strip()] = values
    return over


def run_sweep(sweep: Sweep, console: Console, *, ended: Callable[[Run], None]) -> Manifest:
    """Check all arms, run those that have no report yet one after another, and compare all of them.

    `ended` is called with each arm at its end, also if a step failed. Started again, it repeats nothing.

    Raises:
        MantisError: a recipe cannot be run, or a step failed. The error of an arm names the arm's step.
        InterruptedRunError: the user pressed Ctrl-C. The error lists the saved results.
    """
    parent, store = sweep.parent, sweep.parent.store
    check_name(parent)
    for arm in sweep.arms:
        preflight(sweep.recipe, {**sweep.overrides, **arm.changes}, arm.run, store.url)
    keep_recipe(store, parent.id, parent.recipe)
    write_arms(store, parent.id, [arm.run for arm in sweep.arms])
    status = Status.FAILED
    try:
        for number, arm in enumerate(sweep.arms, 1):
            console.print(f"arm {number} of {len(sweep.arms)}: {_in_words(arm.changes)}", soft_wrap=True, markup=False)
            if explain(read_records(store, arm.run)) == "done":
                console.print(f"run {arm.run} has its report already", soft_wrap=True, markup=False)
                continue
            changes = {**sweep.overrides, **arm.changes}
            start(sweep.recipe, changes, arm.run, store.url, console, "instruction-tuning", ended=ended)
        made = compare(parent)
        status = Status.FINISHED
    except InterruptedRunError:
        status = Status.KILLED
        raise
    finally:
        record_end(parent, status)
    return made


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        depth += (letter in OPENING and not quote) - (letter in CLOSING and not quote)
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _in_words(changes: Mapping[str, str]) -> str:
    return ", ".join(f"{field} = {value}" for field, value in changes.items())
