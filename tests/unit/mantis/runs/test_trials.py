"""The trials of a sweep: what the store keeps, and which trial is pruned."""

import math

import pytest

from mantis.runs.trials import SweepTrial, TrialState, is_hopeless, read_trials, write_trial
from mantis.store.local import LocalStore

STEPS = 100


def trial(number: int, *losses: float, state: TrialState = TrialState.COMPLETE) -> SweepTrial:
    """A trial with an evaluation every ten steps."""
    begun = SweepTrial(number=number, run=f"r{number}", changes={}, values={}, state=TrialState.STARTED)
    points = [(10 * place, loss) for place, loss in enumerate(losses, 1)]
    return begun.ended(state, points, losses[-1] if state is TrialState.COMPLETE else None)


def hopeless(losses: list[float], *others: SweepTrial) -> bool:
    return is_hopeless([(10 * place, loss) for place, loss in enumerate(losses, 1)], others, steps=STEPS)


def test_trials_are_read_as_they_were_written(local_store: LocalStore) -> None:
    assert read_trials(local_store, "sweep") == []
    for each in (trial(10, 1.0), trial(2, 3.0, 2.0)):
        write_trial(local_store, "sweep", each)
    assert [each.number for each in read_trials(local_store, "sweep")] == [2, 10]
    assert read_trials(local_store, "sweep")[0] == trial(2, 3.0, 2.0)
    write_trial(local_store, "sweep", trial(2, 9.0, state=TrialState.PRUNED))
    assert read_trials(local_store, "sweep")[0].state is TrialState.PRUNED


def test_a_trial_above_the_median_at_its_step_is_hopeless() -> None:
    others = (trial(0, 3.0, 2.0, 1.0), trial(1, 5.0, 4.0, 3.0))
    assert hopeless([5.0, 3.1], *others)
    assert not hopeless([5.0, 2.9], *others)
    assert not hopeless([2.9, 9.0], *others)  # its lowest loss counts


def test_the_first_two_trials_and_the_first_steps_are_never_pruned() -> None:
    assert not hopeless([9.0, 9.0], trial(0, 1.0, 1.0))
    assert not hopeless([9.0, 9.0], trial(0, 1.0, 1.0), trial(1, 1.0, 1.0, state=TrialState.PRUNED))
    assert not hopeless([9.0], trial(0, 1.0), trial(1, 1.0))  # step 10 of 100


def test_a_loss_that_is_not_finite_is_hopeless_and_not_stored() -> None:
    assert hopeless([math.nan, math.nan], trial(0, 1.0, 1.0), trial(1, 1.0, 1.0))
    assert trial(0, math.nan, 2.0, state=TrialState.PRUNED).points == ((20, 2.0),)


def test_the_decision_follows_from_the_losses_alone() -> None:
    others = (trial(0, 3.0, 2.0), trial(1, 5.0, 4.0))
    assert [hopeless([5.0, 3.1], *order) for order in (others, others[::-1])] == [True, True]


@pytest.mark.parametrize("state", [TrialState.STARTED, TrialState.PRUNED])
def test_only_complete_trials_count(state: TrialState) -> None:
    assert not hopeless([5.0, 3.1], trial(0, 3.0, 2.0), trial(1, 5.0, 4.0, state=state))
