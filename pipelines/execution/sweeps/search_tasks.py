"""A search as tasks of a pipeline, which run several trials at the same time, in pods that may be killed.

A trial is one object of the store, and its own tasks alone write it. It stays as it is once it is stored. So no task
takes a lock, and a task that is run again repeats no choice.
"""

import time
from collections.abc import Callable, Mapping

from components.training.step import train
from mantis.artifacts.manifest import Manifest
from mantis.errors import MantisError
from mantis.runs.step_runner import Run
from mantis.runs.trials import SweepTrial, TrialState, read_trials
from pipelines.execution.preflight import preflight
from pipelines.execution.sweeps.search_runs import (
    Search,
    keep_trial,
    plan_search,
    prepare_search,
    read_search,
    tell,
    twin_of,
)
from pipelines.execution.sweeps.search_space import over_of, trials_of
from pipelines.execution.sweeps.sweep_runs import plan_sweep, prepare_sweep

PATIENCE = 1200.0  # seconds in which the pods of all earlier trials must have started
POLL_SECONDS = 3.0


class TrialOrderError(MantisError):
    """An earlier trial has no values yet, so a later one cannot know whether its own are new."""


def prepare_asked(
    recipe: str, overrides: Mapping[str, str], over: str, name: str, store_url: str, *, trials: str
) -> Run:
    """Check the sweep of these parameters, and return its parent. `over` and `trials` are texts of KFP's form.

    Raises:
        MantisError: it cannot be run. Nothing was started.
    """
    number, space = trials_of(trials), over_of(over)
    if number:
        return preflight_search(plan_search(recipe, overrides, space, name, store_url, trials=number))
    return prepare_sweep(plan_sweep(recipe, overrides, space, name, store_url))


def preflight_search(search: Search) -> Run:
    """Check what the trials share, with store, weights, benchmarks and launcher, and return the parent.

    Raises:
        MantisError: the search cannot be run. Nothing was started.
    """
    parent = prepare_search(search)
    return preflight(search.recipe, search.overrides, parent.id, parent.store.url)


def stored_search(parent: Run) -> Search:
    """The search that `prepare_search` stored for `parent`, as the task of a trial needs it."""
    kept = read_search(parent)
    return Search(recipe=kept.recipe, overrides=kept.overrides, over=kept.over, parent=parent, trials=0)


def ask_in_turn(
    search: Search, number: int, *, patience: float = PATIENCE, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Choose the values of the trial `number`, check its recipe, and return its arm; empty if it has nothing to run.

    It waits until all earlier trials are stored, i.e. have values; it does not wait for their ends. So two trials that
    start together never take the same values without the later one knowing. A trial with the values of an earlier one,
    and a pruned one, have nothing to run.

    Raises:
        TrialOrderError: an earlier trial had no values after `patience` seconds.
        MantisError: a recipe with these values cannot be run.
    """
    store, parent = search.parent.store, search.parent.id
    end = time.monotonic() + patience
    known = read_trials(store, parent)
    while missing := set(range(number)) - {trial.number for trial in known}:
        if time.monotonic() >= end:
            raise TrialOrderError(
                f"Trial {number + 1} waited {patience:g} s, but trial {min(missing) + 1} has no values.",
                remedy="Look at the pod of that trial. Submit the same sweep again: it goes on from here.",
            )
        sleep(POLL_SECONDS)
        known = read_trials(store, parent)
    trial = search.trial(number, known)
    preflight(search.recipe, {**search.overrides, **trial.changes}, trial.run, store.url)
    kept = keep_trial(search, trial)  # another trial may have ended since, but the values are those that were checked
    return "" if kept.state is TrialState.PRUNED or twin_of(kept, known) is not None else kept.run


def train_trial(arm: Run, mixture: Manifest) -> Manifest | None:
    """Train the arm of a trial, and record its held-out loss. None if the trial is pruned.

    Raises:
        MantisError: as `train` of components/training/step.py.
    """
    try:
        made = train(arm, mixture)
    except MantisError:
        if trial_of(arm).state is TrialState.PRUNED:  # the training stopped itself
            return None
        raise
    tell(arm, trial_of(arm))
    return made


def trial_of(arm: Run) -> SweepTrial:
    """The first trial that the run `arm` stands for."""
    return next(trial for trial in read_trials(arm.store, arm.parent) if trial.run == arm.id)
