"""A sweep that searches: trials with values that Optuna suggests, and a parent run that compares the complete ones.

Each trial is an arm, and an object of the parent's folder. The objects are the whole state of the search.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console

from components.reporting.step import compare
from mantis.artifacts.checkpoint import METRICS
from mantis.artifacts.layout import run_key
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, InputError, MantisError, NotFoundError
from mantis.hashing import fingerprint
from mantis.runs.arms import changes_in_words, write_arms
from mantis.runs.records import read_record
from mantis.runs.step_runner import Run
from mantis.runs.trials import SweepTrial, TrialState, read_trials, write_trial
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.opening import open_store
from pipelines.execution.preflight import check_name, keep_recipe
from pipelines.execution.resolve import fitting, resolve_run
from pipelines.execution.sweeps.search_space import Over, as_text, ends_of, suggest
from pipelines.execution.sweeps.sweep_runs import FEWEST, arm_of, end_recorded, in_words_left, run_arm

SEARCH = "search.json"


class SearchRecord(Versioned):
    """`runs/<sweep>/search.json`: the fields and values that the trials of a sweep share."""

    form = Form.SEARCH

    over: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search of the values in `over` for the lowest held-out loss.

    Attributes:
        recipe: a shipped name, a store URL, or YAML text.
        overrides: changes that all trials share, from dotted field to YAML value.
        over: by field: a list of values, or one range.
        parent: the run that holds the trials and compares them.
        trials: number of trials.
    """

    recipe: str
    overrides: Mapping[str, str]
    over: Over
    parent: Run
    trials: int

    def trial(self, number: int, known: list[SweepTrial]) -> SweepTrial:
        """The trial `number`: as it is stored, else with values that follow from the trials before it."""
        if number < len(known):
            return known[number]
        values = suggest(self.over, known, number=number, seed=self.parent.recipe.seed)
        changes = {field: as_text(value) for field, value in values.items()}
        arm = arm_of(self.recipe, self.overrides, self.parent, changes)
        return SweepTrial(number=number, run=arm, changes=changes, values=values, state=TrialState.STARTED)


def plan_search(
    recipe: str, overrides: Mapping[str, str], over: Over, name: str, store_url: str, *, trials: int
) -> Search:
    """Check a search, and name its parent. Nothing is written.

    Raises:
        ConfigError: the recipe has no held-out loss, a field or value is not valid, or there are fewer than two trials.
    """
    if trials < FEWEST:
        raise ConfigError(f"--trials {trials}: a comparison needs {FEWEST} or more.", remedy="Write --trials 8.")
    run_id, resolved = resolve_run(recipe, overrides, name, store_url)
    if resolved.training.evaluate_every is None:
        raise ConfigError(
            "--trials looks for the lowest held-out loss, but training.evaluate_every is not set.",
            remedy="Add --set data.holdout=200 --set training.evaluate_every=100, or leave out --trials for a grid.",
        )
    space = {field: list(values) for field, values in over.items()}
    parent_id = name or fitting(f"{run_id}-{fingerprint(space)[:6]}", f"name = {resolved.name!r}")
    parent = Run(id=parent_id, store=open_store(store_url), recipe=resolved)
    for field, value in ends_of(over):
        arm_of(recipe, overrides, parent, {field: value})
    return Search(recipe=recipe, overrides=overrides, over=space, parent=parent, trials=trials)


def run_search(search: Search, console: Console, *, ended: Callable[[Run], None]) -> Manifest:
    """Run the trials that have not ended one after another, and compare those that are complete.

    `ended` is called with each arm at its end, also if a step failed. Started again, it repeats nothing.

    Raises:
        MantisError: a recipe cannot be run, or a step failed. The error of an arm names the arm's step.
        InterruptedRunError: the user pressed Ctrl-C. The error lists the saved results.
    """
    parent, store = search.parent, search.parent.store
    check_name(parent)
    _check_space(search)
    keep_recipe(store, parent.id, parent.recipe)
    store.put(run_key(parent.id, SEARCH), SearchRecord(over=dict(search.over)).model_dump_json(indent=1).encode())
    with end_recorded(parent):
        for number in range(search.trials):
            known = read_trials(store, parent.id)
            trial = search.trial(number, known)
            left = in_words_left(store, [each.run for each in known[:number]], search.trials - number)
            words = f"trial {number + 1} of {search.trials}: {changes_in_words(trial.changes)}{left}"
            console.print(words, soft_wrap=True, markup=False)
            done = _run_trial(search, trial, known, console, ended)
            console.print(_outcome(done), soft_wrap=True, markup=False)
        _name_complete(search)
        return compare(parent)


def _check_space(search: Search) -> None:
    """Refuse other values than those of the stored trials, which the sampler could not use together."""
    store, key = search.parent.store, run_key(search.parent.id, SEARCH)
    try:
        kept = SearchRecord.model_validate_json(store.get(key), context=origin(store.uri(key)))
    except NotFoundError:
        return
    if kept.over != search.over:
        raise ConfigError(
            f"mantis_run (--name) = {search.parent.id!r} is a sweep over {json.dumps(kept.over)}.",
            remedy="Choose another name, or omit it: then the name follows from recipe and values.",
        )


def _run_trial(
    search: Search, trial: SweepTrial, known: list[SweepTrial], console: Console, ended: Callable[[Run], None]
) -> SweepTrial:
    store, parent = search.parent.store, search.parent.id
    if trial.state is not TrialState.STARTED:
        return trial
    twin = next((each for each in known if each.run == trial.run and each.state is not TrialState.STARTED), None)
    if twin is not None:  # the sampler may suggest values again
        again = trial.ended(twin.state, twin.points, twin.loss)
        write_trial(store, parent, again)
        return again
    write_trial(store, parent, trial)
    runs = {each.run: each.changes for each in (*known, trial)}
    write_arms(store, parent, list(runs), runs)
    try:
        run_arm(search.recipe, {**search.overrides, **trial.changes}, trial.run, store.url, console, ended=ended)
    except MantisError:
        stored = read_trials(store, parent)[trial.number]
        if stored.state is TrialState.PRUNED:  # the training stopped itself
            return stored
        raise
    complete = _complete(search, trial)
    write_trial(store, parent, complete)
    return complete


def _complete(search: Search, trial: SweepTrial) -> SweepTrial:
    """The trial with the losses of its training: of the step that was converted."""
    store = search.parent.store
    record = read_record(store, trial.run, "train")
    if record is None or not record.key:
        raise InputError(
            f"run = {trial.run!r} has a report, but no training.", remedy=f"Look at `mantis status {trial.run}`."
        )
    rows = [json.loads(line) for line in store.get(f"{record.key}/{METRICS}").splitlines()]
    points = [(int(row["step"]), float(row["held_out_loss"])) for row in rows if "held_out_loss" in row]
    which = "best" if search.parent.recipe.conversion.checkpoint == "best" else "last"
    return trial.ended(TrialState.COMPLETE, points, float(record.summary[f"{which}_held_out_loss"]))


def _name_complete(search: Search) -> None:
    """Tie the parent to the arms that it compares: pruned ones have no scores."""
    store, parent = search.parent.store, search.parent.id
    trials = read_trials(store, parent)
    runs = {trial.run: trial.changes for trial in trials if trial.state is TrialState.COMPLETE}
    if len(runs) < FEWEST:
        raise ConfigError(
            f"The {len(trials)} trials of {parent} have {len(runs)} different runs with scores, but a comparison needs "
            f"{FEWEST}.",
            remedy="Give --over more values, or --trials a larger number.",
        )
    write_arms(store, parent, list(runs), runs)


def _outcome(trial: SweepTrial) -> str:
    if trial.state is TrialState.PRUNED:
        return f"trial {trial.number + 1} was pruned" + (f" after step {trial.points[-1][0]:,}" if trial.points else "")
    return f"trial {trial.number + 1}: held-out loss {trial.loss:.4f}"
