from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.training.batching.balance import Items, balanced

LIMIT = 100
SAMPLES = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100)), min_size=1, max_size=40)


def critical(bins: list[list[int]], costs: np.ndarray, ranks: int) -> float:
    loads = [float(costs[members].sum()) for members in bins]
    return sum(max(loads[at : at + ranks]) for at in range(0, len(loads), ranks))


@settings(deadline=None)
@given(SAMPLES, st.integers(1, 6))
def test_nothing_is_lost_no_limit_broken_and_nothing_gets_worse(samples: Any, ranks: Any) -> None:
    sizes = np.array(samples, dtype=np.int64)
    costs = sizes[:, 0] + 0.01 * sizes[:, 0] ** 2 + 0.3 * sizes[:, 1]
    bins = [[index] for index in range(len(samples))]
    bins += [[] for _ in range(-len(bins) % ranks)]
    found = balanced(bins, Items(costs=costs, sizes=sizes, limits=np.array([LIMIT, LIMIT])), ranks=ranks)
    assert len(found) == len(bins)
    assert sorted(sample for members in found for sample in members) == list(range(len(samples)))
    assert all((sizes[members].sum(axis=0) <= LIMIT).all() for members in found)
    ordered = sorted(bins, key=lambda members: -costs[members].sum())
    assert critical(found, costs, ranks) <= critical(ordered, costs, ranks) * (1 + 1e-9)


def test_uneven_bins_are_made_even() -> None:
    sizes = np.array([[10, 0]] * 8, dtype=np.int64)
    costs = np.full(8, 10.0)
    found = balanced([list(range(8)), []], Items(costs=costs, sizes=sizes, limits=np.array([100, 100])), ranks=2)
    assert [len(members) for members in found] == [4, 4]


def plain_items(costs: list[int], sizes: list[tuple[int, int]] | None = None) -> Items:
    """Samples of whole costs, so that every sum is exact on any machine."""
    held = np.array(sizes or [(cost, 0) for cost in costs], dtype=np.int64)
    return Items(costs=np.array(costs, dtype=np.float64), sizes=held, limits=np.array([LIMIT, LIMIT]))


@pytest.mark.parametrize(
    ("bins", "costs", "ranks", "found"),
    [
        # The most expensive round comes first, and of bins of one cost the first.
        ([[0], [1], [2], [3]], [10, 40, 40, 10], 2, [[1], [2], [0], [3]]),
        # A move within a round: the bins become equal.
        ([[0, 1, 2], []], [20, 10, 10], 2, [[1, 2], [0]]),
        # An exchange within a round, where no move helps: 30 + 30 against 20 + 20.
        ([[0, 1], [2, 3]], [30, 30, 20, 20], 2, [[1, 2], [0, 3]]),
        # A move from a round with one dear bin into the room of the other round, which stays as long as it is.
        ([[0, 1], [2], [3], [4]], [60, 20, 60, 50, 20], 2, [[0], [2], [3], [1, 4]]),
        # Nothing to gain: the two bins of a round cost the same.
        ([[0, 1], [2, 3]], [25, 25, 25, 25], 2, [[0, 1], [2, 3]]),
        # One rank never waits.
        ([[0, 1, 2], []], [20, 10, 10], 1, [[0, 1, 2], []]),
    ],
)
def test_what_balancing_does(bins: list[list[int]], costs: list[int], ranks: int, found: list[list[int]]) -> None:
    assert balanced(bins, plain_items(costs), ranks=ranks) == found


@pytest.mark.parametrize("column", [0, 1])
def test_a_full_bin_takes_nothing_more(column: int) -> None:
    for size, fits in ((LIMIT - 40, True), (LIMIT - 39, False)):
        sizes = [(each, 1) if column == 0 else (1, each) for each in (40, 40, size)]
        found = balanced([[0, 1], [2]], plain_items([20, 20, 5], sizes), ranks=2)
        assert (found == [[0, 1], [2]]) != fits, found


def test_many_bins_become_even_within_a_percent() -> None:
    costs = [(7 * at) % 23 + 1 for at in range(64)]
    bins = [list(range(start, start + 4)) for start in range(0, 64, 4)]
    found = balanced(bins, plain_items(costs, [(1, 1)] * 64), ranks=8)
    before, after = (critical(each, np.array(costs, dtype=float), 8) for each in (bins, found))
    assert after < before
    assert found == EIGHT_RANKS


# The balance of a step must not change: a training that resumes takes the same micro-steps as before.
EIGHT_RANKS = [
    [24, 25, 26, 27], [29, 36, 37], [14, 15, 39, 47], [16, 17, 19, 40], [11, 49, 50, 51], [56, 57, 58, 59],
    [3, 28, 30, 31], [52, 54, 55], [60, 61, 62, 63], [0, 1, 2, 13], [4, 5, 6, 7, 53], [8, 9, 10, 48],
    [18, 41, 42, 43], [32, 33, 34, 35], [20, 21, 22, 23, 38], [12, 44, 45, 46],
]  # fmt: skip
