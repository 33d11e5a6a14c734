"""The trials of a sweep that searches for values: `runs/<sweep>/trials/<number>.json`, and which trial is hopeless."""

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from mantis.artifacts.layout import trial_key, trials_of
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore

if TYPE_CHECKING:
    import optuna

STARTUP = 2  # trials that are never pruned: a median needs them, and so does the comparison
WARM_UP = 5  # nothing is pruned in the first fifth of the steps


class TrialState(StrEnum):
    """What became of a trial; a STARTED one whose process is gone goes on when the sweep does."""

    STARTED = "started"
    COMPLETE = "complete"
    PRUNED = "pruned"


class SweepTrial(Versioned):
    """One trial: the arm that runs it, its changes of the recipe, and what its training showed.

    Attributes:
        number: place among the trials, from 0.
        run: id of the arm.
        changes: from dotted field to YAML value.
        values: the suggested values, as the sampler knows them.
        state: what became of it.
        loss: the held-out loss of the model, in nats; None unless the trial is complete.
        points: step and held-out loss of each evaluation with a finite loss, in the order of steps.
    """

    form = Form.TRIAL

    number: int
    run: str
    changes: dict[str, str]
    values: dict[str, float | int | str]
    state: TrialState
    loss: float | None = None
    points: tuple[tuple[int, float], ...] = ()

    def ended(self, state: TrialState, points: Iterable[tuple[int, float]], loss: float | None = None) -> "SweepTrial":
        """The trial as it ended."""
        finite = tuple((step, value) for step, value in points if math.isfinite(value))
        return self.model_copy(update={"state": state, "points": finite, "loss": loss})


def write_trial(store: ObjectStore, sweep: str, trial: SweepTrial) -> None:
    """Store the trial; it replaces an earlier state of the same number."""
    store.put(trial_key(sweep, trial.number), trial.model_dump_json(indent=1).encode())


def read_trials(store: ObjectStore, sweep: str) -> list[SweepTrial]:
    """All trials of the sweep by number; none where it is no search."""
    keys = sorted(entry.key for entry in store.list(trials_of(sweep)))
    return [SweepTrial.model_validate_json(store.get(key), context=origin(store.uri(key))) for key in keys]


def is_hopeless(points: Sequence[tuple[int, float]], trials: Sequence[SweepTrial], *, steps: int) -> bool:
    """Whether the rest of a training is not worth its time, by Optuna's median rule.

    Its lowest held-out loss so far is then above the median that the complete `trials` had at this step. The decision
    follows from the losses alone, so a resumed training decides the same.

    Args:
        points: step and held-out loss of each evaluation so far.
        trials: the other trials of the sweep.
        steps: optimizer steps of the whole training.
    """
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=math.ceil(steps / WARM_UP))
    study = quiet_study(pruner=pruner)
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            study.add_trial(optuna.trial.create_trial(value=trial.loss, intermediate_values=dict(trial.points)))
    running = study.ask()
    for step, loss in points:
        running.report(loss, step)
    return running.should_prune()


def quiet_study(
    *, sampler: "optuna.samplers.BaseSampler | None" = None, pruner: "optuna.pruners.BasePruner | None" = None
) -> "optuna.Study":
    """Make a study in memory that looks for a low loss, and logs warnings alone."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)
