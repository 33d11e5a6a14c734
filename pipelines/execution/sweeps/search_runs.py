"""A sweep that searches: trials with values that Optuna suggests, and a parent run that compares the complete ones.

Each trial is an arm, and an object of the parent's folder. The objects are the whole state of the search.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field
from rich.console import Console

from components.reporting.step import compare
from mantis.artifacts.checkpoint import METRICS
from mantis.artifacts.layout import run_key
from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError, InputError, MantisError, NotFoundError
from mantis.hashing import fingerprint
from mantis.runs.arms import changes_in_words, write_arms
from mantis.runs.records import read_record
from mantis.runs.step_runner import Run, open_run
from mantis.runs.trials import SweepTrial, TrialState, read_trials, write_trial
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore
from mantis.store.opening import open_store
from pipelines.execution.preflight import check_name, keep_recipe
from pipelines.execution.resolve import fitting, resolve_run
from pipelines.execution.sweeps.search_space import Over, as_text, ends_of, suggest
from pipelines.execution.sweeps.sweep_runs import FEWEST, arm_of, end_recorded, in_words_left, run_arm

SEARCH = "search.json"


class SearchRecord(Versioned):
    """`runs/<sweep>/search.json`: what the trials of a sweep share.

    Attributes:
        over: fields and their values.
        recipe: a shipped name, a store URL, or YAML text.
        overrides: changes that all trials share, from dotted field to YAML value.
    """

    form = Form.SEARCH

    over: dict[str, list[str]]
    recipe: str = ""
    overrides: dict[str, str] = Field(default_factory=dict)


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
        """The trial `number`: as it is stored, else with values that follow from the trials that are known."""
        stored = next((trial for trial in known if trial.number == number), None)
        if stored is not None:
            return stored
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
    parent, store = prepare_search(search), search.parent.store
    with end_recorded(parent):
        for number in range(search.trials):
            known = read_trials(store, parent.id)
            trial = keep_trial(search, search.trial(number, known))
            before = [each.run for each in known if each.number < number]
            left = in_words_left(store, before, search.trials - number)
            words = f"trial {number + 1} of {search.trials}: {changes_in_words(trial.changes)}{left}"
            console.print(words, soft_wrap=True, markup=False)
            done = _run_trial(search, trial, console, ended)
            console.print(_outcome(done), soft_wrap=True, markup=False)
        return compare_complete(parent)


def prepare_search(search: Search) -> Run:
    """Check what the trials share, write it to the folder of the parent, and return the parent.

    Raises:
        ConfigError: the name belongs to another run, or to a search of other values.
    """
    parent, store = search.parent, search.parent.store
    check_name(parent)
    _check_space(search)
    keep_recipe(store, parent.id, parent.recipe)
    record = SearchRecord(
        over={field: list(values) for field, values in search.over.items()},
        recipe=search.recipe,
        overrides={field: str(value) for field, value in search.overrides.items()},
    )
    store.put(run_key(parent.id, SEARCH), record.model_dump_json(indent=1).encode())
    return parent


def keep_trial(search: Search, trial: SweepTrial) -> SweepTrial:
    """Store a trial of `Search.trial`, and return it as it is stored: one that was stored before stays as it is.

    If an earlier trial with the same values has ended, this one ends like it. The trial is stored last: where it is,
    its arm belongs to the sweep. All earlier trials have to be stored.
    """
    store, parent = search.parent.store, search.parent.id
    known = read_trials(store, parent)
    trial = next((each for each in known if each.number == trial.number), trial)
    runs = {each.run: each.changes for each in (*known, trial)}
    write_arms(store, parent, list(runs), runs)
    return _like_twin(store, parent, trial, known)


def compare_complete(parent: Run) -> Manifest:
    """Compare the arms of the complete trials, after all trials of the search have ended.

    Raises:
        ConfigError: fewer than two arms are complete.
    """
    known = read_trials(parent.store, parent.id)
    _name_complete(parent, [_like_twin(parent.store, parent.id, trial, known) for trial in known])
    return compare(parent)


def twin_of(trial: SweepTrial, known: Sequence[SweepTrial]) -> SweepTrial | None:
    """The first trial before `trial` with the same values; the sampler may suggest values again."""
    return next((each for each in known if each.run == trial.run and each.number < trial.number), None)


def _like_twin(store: ObjectStore, parent: str, trial: SweepTrial, known: Sequence[SweepTrial]) -> SweepTrial:
    """Store the trial, ended if its twin has ended."""
    twin = twin_of(trial, known)
    if trial.state is TrialState.STARTED and twin is not None and twin.state is not TrialState.STARTED:
        trial = trial.ended(twin.state, twin.points, twin.loss)
    if trial not in known:
        write_trial(store, parent, trial)
    return trial


def read_search(parent: Run) -> SearchRecord:
    """What the trials of the search `parent` share.

    Raises:
        NotFoundError: it is no search.
    """
    key = run_key(parent.id, SEARCH)
    return SearchRecord.model_validate_json(parent.store.get(key), context=origin(parent.store.uri(key)))


def _check_space(search: Search) -> None:
    """Refuse other values than those of the stored trials, which the sampler could not use together."""
    try:
        kept = read_search(search.parent)
    except NotFoundError:
        return
    if kept.over != search.over:
        raise ConfigError(
            f"mantis_run (--name) = {search.parent.id!r} is a sweep over {json.dumps(kept.over)}.",
            remedy="Choose another name, or omit it: then the name follows from recipe and values.",
        )


def _run_trial(search: Search, trial: SweepTrial, console: Console, ended: Callable[[Run], None]) -> SweepTrial:
    if trial.state is TrialState.PRUNED:
        return trial
    store, parent = search.parent.store, search.parent.id
    try:  # also for a complete trial: a pipeline calls it complete before its report is written
        run_arm(search.recipe, {**search.overrides, **trial.changes}, trial.run, store.url, console, ended=ended)
    except MantisError:
        stored = search.trial(trial.number, read_trials(store, parent))
        if stored.state is TrialState.PRUNED:  # the training stopped itself
            return stored
        raise
    return tell(open_run(trial.run, store.url), trial)


def tell(arm: Run, trial: SweepTrial) -> SweepTrial:
    """Record the trial as complete, with the losses of its training. A trial that has ended stays.

    Its own loss is that of the step that is converted.

    Raises:
        InputError: the arm has not trained.
    """
    if trial.state is not TrialState.STARTED:
        return trial
    record = read_record(arm.store, arm.id, "train")
    if record is None or not record.key:
        raise InputError(f"run = {arm.id!r} has no training.", remedy=f"Look at `mantis status {arm.id}`.")
    rows = [json.loads(line) for line in arm.store.get(f"{record.key}/{METRICS}").splitlines()]
    points = [(int(row["step"]), float(row["held_out_loss"])) for row in rows if "held_out_loss" in row]
    which = "best" if arm.recipe.conversion.checkpoint == "best" else "last"
    complete = trial.ended(TrialState.COMPLETE, points, float(record.summary[f"{which}_held_out_loss"]))
    write_trial(arm.store, arm.parent, complete)
    return complete


def _name_complete(parent: Run, trials: Sequence[SweepTrial]) -> None:
    """Tie the parent to the arms that it compares: pruned ones have no scores."""
    runs = {trial.run: trial.changes for trial in trials if trial.state is TrialState.COMPLETE}
    if len(runs) < FEWEST:
        raise ConfigError(
            f"The {len(trials)} trials of {parent.id} have {len(runs)} different runs with scores, but a comparison "
            f"needs {FEWEST}.",
            remedy="Give --over more values, or --trials a larger number.",
        )
    write_arms(parent.store, parent.id, list(runs), runs)


def _outcome(trial: SweepTrial) -> str:
    if trial.state is TrialState.PRUNED:
        return f"trial {trial.number + 1} was pruned" + (f" after step {trial.points[-1][0]:,}" if trial.points else "")
    return f"trial {trial.number + 1}: held-out loss {trial.loss:.4f}"
