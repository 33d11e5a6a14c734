"""How sure a score is."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
BLOCK = 4_000_000  # resampled values held in memory at once


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64], *, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values` (at least one)."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("the mean of no values has no interval")
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // sample.size)
    means = [
        sample[rng.integers(sample.size, size=(min(rows, DRAWS - start), sample.size))].mean(axis=1)
        for start in range(0, DRAWS, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_above_chance(correct: int, total: int, chance: float) -> float:
    """Probability of at least `correct` right answers out of `total` by guessing; exact (binomial, one-sided)."""
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} of {total} answers cannot be right")
    if correct == 0 or chance >= 1:
        return 1.0
    if chance <= 0:
        return 0.0
    log_all = math.lgamma(total + 1)
    terms = [
        log_all
        - math.lgamma(k + 1)
        - math.lgamma(total - k + 1)
        + k * math.log(chance)
        + (total - k) * math.log1p(-chance)
        for k in range(correct, total + 1)
    ]
    largest = max(terms)
    return min(1.0, math.exp(largest) * math.fsum(math.exp(term - largest) for term in terms))
