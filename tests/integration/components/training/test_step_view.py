"""The micro-steps that `mantis data show` says are those that ranks train."""

import json
from typing import Any

import pytest

from components.training.batching.training_plan import PlanRecord
from components.training.step import training_task
from components.training.step_view import view_step
from mantis.errors import ConfigError
from mantis.showing.shown_data import ShownRow, ShownStep
from tests.fixtures.training import MakeRun, Torchrun

STEPS, RANKS = 2, 2


def trained_tokens(run: Any) -> list[list[list[list[list[int]]]]]:
    """The tokens of the trained samples, by rank, step, micro-step and sample."""
    return [json.loads(run.store.get(run.key(f"micro-steps-{rank}.json"))) for rank in range(RANKS)]


def positions(step: ShownStep) -> list[tuple[int, int, list[int]]]:
    return [(part.rank, part.number, [sample.position for sample in part.samples]) for part in step.micro_steps]


def read_tokens(row: ShownRow) -> list[int]:
    assert row.tokens is not None
    return [token for piece in row.tokens.pieces for token in piece.ids]


def test_a_step_shows_the_micro_steps_and_the_tokens_that_the_ranks_train(
    make_run: MakeRun, torchrun: Torchrun
) -> None:
    run, mixture = make_run("micro-steps", {"training.max_steps": str(STEPS), "training.token_budget": "40"})
    before = [view_step(run, mixture, number, shown=1000) for number in range(1, STEPS + 1)]
    assert not any(view.started for view in before)

    done = torchrun("record_micro_steps", RANKS, run.store.url, run.id)
    assert done.returncode == 0, done.stderr
    trained = trained_tokens(run)
    for number in range(1, STEPS + 1):
        view = view_step(run, mixture, number, shown=1000)
        assert view.started
        assert positions(view.step) == positions(before[number - 1].step)  # the plan is known before training begins
        assert len(view.step.micro_steps) == sum(len(trained[rank][number - 1]) for rank in range(RANKS))
        assert len(view.step.micro_steps) > RANKS  # the budget cuts each rank's share into several micro-steps
        shown = {row.position: row for row in view.rows}
        for part in view.step.micro_steps:
            tokens = trained[part.rank][number - 1][part.number - 1]
            assert [sample.tokens for sample in part.samples] == [len(each) for each in tokens]
            assert [read_tokens(shown[sample.position]) for sample in part.samples] == tokens
            assert part.tokens <= view.step.token_budget or len(part.samples) == 1


def test_ranks_of_the_last_start_give_the_micro_steps(make_run: MakeRun) -> None:
    run, mixture = make_run("one-rank", {"training.max_steps": "1"})
    assert view_step(run, mixture, 1, shown=1).step.ranks == 2  # the recipe's
    PlanRecord(quadratic=0.0, patch=0.0, world_size=1).save(run.store, training_task(run, mixture).address())
    step = view_step(run, mixture, 1, shown=1).step
    assert step.ranks == 1
    assert {part.rank for part in step.micro_steps} == {0}


def test_a_step_behind_the_last_one_is_refused(make_run: MakeRun) -> None:
    run, mixture = make_run("behind", {"training.max_steps": "2"})
    with pytest.raises(ConfigError, match="--step 3: the training of behind has 2 steps"):
        view_step(run, mixture, 3, shown=1)
