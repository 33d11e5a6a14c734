from typing import Any

import numpy as np
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
