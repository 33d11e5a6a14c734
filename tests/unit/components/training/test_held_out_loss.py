"""What the held-out losses decide: the best step, the end of training, and what a resumed training still knows."""

import json
import math
from typing import Any

import pytest

from components.conversion.zero.checkpoint_reader import step_to_convert
from components.training.callbacks.callback import FinishedStep
from components.training.callbacks.held_out_loss import HeldOutLoss, HeldOutPoint
from components.training.monitoring.running_trial import RunningTrial
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import File, Manifest, provenance
from mantis.errors import ConversionError
from mantis.runs.trials import SweepTrial, TrialState, read_trials, write_trial
from mantis.store.local import LocalStore


class Losses:
    """Stands for the evaluator: returns one loss after another."""

    samples = 3

    def __init__(self, *losses: float) -> None:
        self.left = list(losses)

    def loss(self, announce: Any) -> float:
        announce("part 1")
        return self.left.pop(0)


class Loop:
    """Stands for the trainer."""

    steps = 10
    state: Any = None

    def __init__(self) -> None:
        self.announced: list[Any] = []

    def announce(self, *event: Any) -> None:
        self.announced.append(event)


def evaluated(*losses: float, **settings: Any) -> HeldOutLoss:
    """After one evaluation at every second step."""
    evaluator: Any = Losses(*losses)
    given: dict[str, Any] = {"every": 2, "keeps_best": True, "patience": None} | settings
    held_out = HeldOutLoss(evaluator=evaluator, probe=dict, is_main=True, **given)
    held_out.on_start(Loop())
    figures: Any = None
    for step in range(1, 2 * len(losses) + 1):
        held_out.after_step(FinishedStep(step=step, figures=figures, row={"step": step}))
    return held_out


def test_the_best_step_is_the_first_of_the_lowest_loss() -> None:
    assert evaluated(3.0, 1.0, 2.0, 1.0).best == HeldOutPoint(4, 1.0)
    assert evaluated(math.nan, 2.0, math.inf).best_to_keep == 4
    assert evaluated(3.0, 1.0, keeps_best=False).best_to_keep is None
    assert evaluated(math.nan).best_to_keep is None


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ((3.0, 2.0, 1.0), False),
        ((3.0, 4.0), False),
        ((3.0, 4.0, 3.5), True),
        ((3.0, 3.0, 3.0), True),
        ((3.0, 4.0, 2.0, 5.0), False),
        ((math.nan, math.nan), True),
    ],
)
def test_training_stops_after_that_many_evaluations_without_a_lower_loss(losses: Any, stops: bool) -> None:
    assert evaluated(*losses, patience=2).stops is stops
    assert not evaluated(*losses).stops


def test_a_resumed_training_decides_the_same() -> None:
    before = evaluated(3.0, 4.0, 3.5, patience=2)
    after = HeldOutLoss(evaluator=before.evaluator, probe=dict, is_main=True, every=2, keeps_best=True, patience=2)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert (after.points, after.best, after.stops) == (before.points, before.best, True)


def test_a_loss_joins_the_row_of_its_own_step_or_none() -> None:
    held_out = evaluated()
    held_out.evaluator.left = [1.0, 2.0, 3.0]  # type: ignore[attr-defined]
    figures: Any = None
    assert held_out.after_step(FinishedStep(step=1, figures=figures, row={"step": 1})) == {}
    assert held_out.after_step(FinishedStep(step=2, figures=figures, row={"step": 2})) == {"held_out_loss": 1.0}
    assert held_out.after_step(FinishedStep(step=4, figures=figures, row=None)) == {}
    assert held_out.points == [HeldOutPoint(2, 1.0), HeldOutPoint(4, 2.0)]
    assert held_out.trainer.announced[:2] == [("evaluate", 2, "part 1"), ("other", 2)]  # type: ignore[attr-defined]


def checkpoint(**summary: Any) -> Manifest:
    files = tuple(File(name=f"step-{step:08d}/COMMIT", size=1, sha256="0" * 64) for step in (4, 8))
    made = provenance("train", 1, {}, run="r")
    return Manifest(
        kind=ArtifactKind.CHECKPOINT, key="checkpoints/x", fingerprint="x", made_by=made, files=files, summary=summary
    )


def test_conversion_takes_the_step_that_the_recipe_says() -> None:
    assert step_to_convert(checkpoint(best_step=4), "last") == 8
    assert step_to_convert(checkpoint(best_step=4), "best") == 4
    with pytest.raises(ConversionError, match=r"no checkpoint of its best step 6; it has those of 4, 8.*keep_best"):
        step_to_convert(checkpoint(best_step=6), "best")
    with pytest.raises(ConversionError, match="no checkpoint of its best step; it"):
        step_to_convert(checkpoint(), "best")


class Alone:
    """Stands for the ranks: one rank."""

    is_main = True

    def all_reduce_sum(self, *values: float) -> list[float]:
        return list(values)


def stored_trial(store: LocalStore, number: int, state: TrialState, *losses: float) -> SweepTrial:
    trial = SweepTrial(number=number, run=f"r{number}", changes={}, values={}, state=TrialState.STARTED)
    if state is not TrialState.STARTED:
        points = [(2 * place, loss) for place, loss in enumerate(losses, 1)]
        trial = trial.ended(state, points, losses[-1])
    write_trial(store, "sweep", trial)
    return trial


@pytest.mark.parametrize(
    ("losses", "gives_up"), [((9.0,), True), ((4.5, 4.4), True), ((4.5, 3.9), False), ((4.5, 3.9, 3.5), True)]
)
def test_a_hopeless_trial_gives_up_and_is_recorded(local_store: LocalStore, losses: Any, gives_up: bool) -> None:
    """At steps 2, 4 and 6 of 10. The medians are 5, 4 and 3."""
    for number in (0, 1):
        stored_trial(local_store, number, TrialState.COMPLETE, 4.0 + 2 * number, 4.0, 3.0)
    own = stored_trial(local_store, 2, TrialState.STARTED)
    ranks: Any = Alone()
    trial = RunningTrial(store=local_store, run="r2", sweep="sweep", ranks=ranks)
    held_out = evaluated(*losses, trial=trial)
    assert held_out.gives_up is gives_up
    stored = read_trials(local_store, "sweep")[2]
    assert stored == (own.ended(TrialState.PRUNED, held_out.points) if gives_up else own)


def test_the_last_step_is_never_given_up(local_store: LocalStore) -> None:
    for number in (0, 1):
        stored_trial(local_store, number, TrialState.COMPLETE, *[1.0] * 5)
    stored_trial(local_store, 2, TrialState.STARTED)
    ranks: Any = Alone()
    trial = RunningTrial(store=local_store, run="r2", sweep="sweep", ranks=ranks)
    assert not evaluated(0.5, 0.5, 0.5, 0.5, 9.0, trial=trial).gives_up


def test_a_run_that_is_no_open_trial_goes_on(local_store: LocalStore) -> None:
    """Of a pruned trial that somebody trains whole, and of an arm that is no trial."""
    for number in (0, 1):
        stored_trial(local_store, number, TrialState.COMPLETE, 1.0, 1.0)
    stored_trial(local_store, 2, TrialState.PRUNED, 9.0, 9.0)
    for run in ("r2", "r3"):
        ranks: Any = Alone()
        trial = RunningTrial(store=local_store, run=run, sweep="sweep", ranks=ranks)
        assert not evaluated(9.0, 9.0, trial=trial).gives_up
