from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.training.batching.sample_plan import (
    Budgets,
    CostModel,
    Lengths,
    SamplePlan,
    StepPlan,
    _levels,
)
from mantis.errors import ConfigError
from tests.helpers.machine_speed import processor_seconds, reference_seconds

TOKENS, PATCHES = 100, 60
COST = CostModel(quadratic=1e-3, patch=0.5)
LENGTHS = st.lists(st.tuples(st.integers(1, 140), st.integers(0, 80)), min_size=1, max_size=60)


def make_plan(
    lengths: list[tuple[int, int]], *, batch_size: int = 8, epochs: int = 1, max_steps: int | None = None, seed: int = 0
) -> SamplePlan:
    tokens, patches = (np.array(column, dtype=np.int64) for column in zip(*lengths, strict=True))
    return SamplePlan(
        Lengths(tokens=tokens, patches=patches),
        seed=seed,
        batch_size=batch_size,
        epochs=epochs,
        max_steps=max_steps,
        budgets=Budgets(tokens=TOKENS, patches=PATCHES),
        cost=COST,
    )


@given(LENGTHS, st.integers(1, 20), st.integers(1, 3), st.integers(0, 2**31))
def test_every_sample_once_per_epoch(lengths: Any, batch_size: Any, epochs: Any, seed: Any) -> None:
    plan = make_plan(lengths, batch_size=batch_size, epochs=epochs, seed=seed)
    steps = [plan.samples(step) for step in range(plan.steps)]
    assert all(len(step) == batch_size for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= batch_size
    stream = np.concatenate(steps)
    assert len(stream) == epochs * len(lengths)
    for epoch in np.split(stream, epochs):
        assert sorted(epoch) == list(range(len(lengths)))


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.sampled_from([1, 2, 3, 8, 16]))
def test_a_step_is_cut_without_loss_and_within_budgets(lengths: Any, batch_size: Any, world_size: Any) -> None:
    plan = make_plan(lengths, batch_size=batch_size)
    for step in range(plan.steps):
        planned = plan.step(step, world_size=world_size)
        assert len(planned.ranks) == world_size
        assert len({len(rank) for rank in planned.ranks}) == 1
        assert len(planned.ranks[0]) >= 1
        micro_steps = [part for rank in planned.ranks for part in rank]
        assert sorted(np.concatenate(micro_steps)) == sorted(planned.samples)
        for part in micro_steps:
            tokens, patches = (sum(lengths[at][column] for at in part) for column in (0, 1))
            assert len(part) == 1 or (tokens <= TOKENS and patches <= PATCHES)
        assert 0 <= planned.idle < 1


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(0, 5))
def test_the_world_size_does_not_change_what_a_step_trains(lengths: Any, batch_size: Any, seed: Any) -> None:
    plan = make_plan(lengths, batch_size=batch_size, seed=seed)
    for step in range(plan.steps):
        found = [plan.step(step, world_size=size).samples.tolist() for size in (1, 2, 8, 16)]
        assert all(samples == found[0] for samples in found)


def test_another_process_makes_the_same_plan() -> None:
    lengths = [(index % 90 + 1, index % 7) for index in range(50)]
    one, two = make_plan(lengths, seed=7), make_plan(lengths, seed=7)
    two.step(3, world_size=2)  # the order of asking must not matter
    for step in range(one.steps):
        first, second = one.step(step, world_size=4), two.step(step, world_size=4)
        assert [[part.tolist() for part in rank] for rank in first.ranks] == [
            [part.tolist() for part in rank] for rank in second.ranks
        ]


def test_the_order_is_the_one_that_was_trained_before() -> None:
    # Golden: a checkpoint's place in the stream means something only while this holds.
    plan = make_plan([(1, 0)] * 10, batch_size=10, epochs=2, seed=42)
    assert [plan.samples(step).tolist() for step in (0, 1)] == GOLDEN


GOLDEN = [[5, 0, 6, 4, 2, 7, 3, 1, 8, 9], [3, 1, 2, 9, 5, 0, 6, 8, 7, 4]]


def test_epochs_and_seeds_differ() -> None:
    plan = make_plan([(1, 0)] * 30, batch_size=30, epochs=2)
    other = make_plan([(1, 0)] * 30, batch_size=30, seed=1)
    assert plan.samples(0).tolist() != plan.samples(1).tolist()
    assert plan.samples(0).tolist() != other.samples(0).tolist()


def test_max_steps_ends_the_plan() -> None:
    assert make_plan([(1, 0)] * 30, batch_size=10, max_steps=2).steps == 2
    assert make_plan([(1, 0)] * 30, batch_size=10, max_steps=9).steps == 3


def test_no_samples_is_an_error_for_people() -> None:
    with pytest.raises(ConfigError, match="ledger"):
        SamplePlan(
            Lengths(tokens=np.array([], dtype=np.int64), patches=np.array([], dtype=np.int64)),
            seed=0,
            batch_size=1,
            epochs=1,
            max_steps=None,
            budgets=Budgets(tokens=1, patches=1),
            cost=COST,
        )


def test_balance_and_speed_on_lengths_like_the_real_ones() -> None:
    generator = np.random.default_rng(0)
    tokens = np.clip(generator.lognormal(6.4, 0.75, 20_000), 40, 8000).astype(np.int64)
    plan = SamplePlan(
        Lengths(tokens=tokens, patches=np.clip(tokens // 2, 0, 5000)),
        seed=0,
        batch_size=128,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=8192, patches=10_000),
        cost=CostModel(quadratic=2e-5, patch=0.05),
    )
    plan.samples(0)
    steps: list[StepPlan] = []
    spent = processor_seconds(lambda: steps.extend(plan.step(step, world_size=16) for step in range(100)))
    assert spent / 100 < 0.5 * reference_seconds(), "five milliseconds each on a usual core"
    assert np.mean([step.idle for step in steps]) < 0.03
    assert max(len(step.ranks[0]) for step in steps) <= 2


def plain_plan(count: int = 60, *, batch_size: int = 12, seed: int = 3) -> SamplePlan:
    """A plan whose costs are whole numbers, so that every sum is exact on any machine."""
    tokens = np.array([(37 * at) % 90 + 1 for at in range(count)], dtype=np.int64)
    patches = np.array([(53 * at) % 60 for at in range(count)], dtype=np.int64)
    tokens[5], patches[6] = TOKENS + 1, PATCHES + 1
    patches[::7] = 0
    return SamplePlan(
        Lengths(tokens=tokens, patches=patches),
        seed=seed,
        batch_size=batch_size,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=TOKENS, patches=PATCHES),
        cost=CostModel(quadratic=0.0, patch=1.0),
    )


def test_the_micro_steps_are_those_that_were_trained_before() -> None:
    # Golden: a training that resumes adds the same micro-steps up in the same order, which gives the same bits.
    plan = plain_plan()
    found = {
        size: [[[part.tolist() for part in rank] for rank in plan.step(step, world_size=size).ranks] for step in (0, 3)]
        for size in (1, 3)
    }
    assert found == MICRO_STEPS


MICRO_STEPS = {
    1: [
        [[[5], [9], [10, 21], [35, 57], [41, 0], [18], [17], [52], [24]]],
        [[[46], [2], [26], [6], [31], [45], [49, 3], [47], [27], [44], [37]]],
    ],
    3: [
        [[[5], [35, 57], [17]], [[9], [41, 0], [52]], [[10, 21], [18], [24]]],
        [[[46], [6], [3], [37]], [[2], [31], [47], [27]], [[26], [45], [44], [49]]],
    ],
}


def test_a_plan_says_how_long_ranks_wait_and_how_many_micro_steps_have_no_image() -> None:
    plan = plain_plan()
    for size in (1, 2, 3):
        planned = plan.step(1, world_size=size)
        cost = {int(at): (37 * at) % 90 + 1 + ((53 * at) % 60 if at % 7 else 0) for at in range(60)}
        cost |= {5: TOKENS + 1 + (53 * 5) % 60, 6: (37 * 6) % 90 + 1 + PATCHES + 1}
        loads = [[sum(cost[int(at)] for at in part) for part in rank] for rank in planned.ranks]
        critical = sum(max(round_) for round_ in zip(*loads, strict=True))
        assert planned.idle == pytest.approx(1 - sum(map(sum, loads)) / (critical * size), abs=1e-12)
        empty = [part for rank in planned.ranks for part in rank if all(at % 7 == 0 and at != 6 for at in part)]
        assert planned.imageless == len(empty)


def test_a_cost_grows_with_the_square_of_tokens() -> None:
    cost = CostModel(quadratic=0.5, patch=2.0)
    assert cost(np.array([3, 10]), np.array([1, 0])).tolist() == [3 + 0.5 * 9 + 2, 10 + 0.5 * 100]


def test_micro_steps_are_as_few_as_the_budgets_allow() -> None:
    full = make_plan([(TOKENS, 1)] * 4 + [(1, PATCHES)] * 4, batch_size=8)
    for size, each in ((1, 8), (2, 4), (8, 1)):
        assert [len(rank) for rank in full.step(0, world_size=size).ranks] == [each] * size
    halves = make_plan([(TOKENS // 2, PATCHES // 2)] * 8, batch_size=8)
    assert [len(rank) for rank in halves.step(0, world_size=2).ranks] == [2, 2]
    few = make_plan([(1, 0)] * 2, batch_size=2).step(0, world_size=3)
    assert sorted(len(part) for rank in few.ranks for part in rank) == [0, 1, 1]


def test_rounds_cost_the_same_unless_one_sample_costs_more() -> None:
    assert _levels(np.array([5.0, 5.0, 5.0, 5.0]), 2, 2).tolist() == [5.0, 5.0]
    assert _levels(np.array([30.0, 6.0, 4.0, 2.0]), 3, 2).tolist() == [30.0, 4.0, 0.0]
    assert _levels(np.array([9.0, 3.0, 3.0]), 3, 1).tolist() == [9.0, 3.0, 3.0]
    assert _levels(np.array([8.0]), 2, 1).tolist() == [8.0, 0.0]


def test_a_seed_may_be_any_whole_number() -> None:
    large = [make_plan([(1, 0)] * 30, batch_size=30, seed=seed).samples(0).tolist() for seed in (5, 2**32 + 5)]
    assert large[0] == large[1]
    assert make_plan([(1, 0)] * 30, batch_size=30, seed=2**32 - 1).samples(0).tolist() != large[0]
