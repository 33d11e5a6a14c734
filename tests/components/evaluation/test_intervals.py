import numpy as np
import pytest
from scipy.stats import binomtest

from components.evaluation.intervals import bootstrap_interval, p_above_chance


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for draw in range(400):
        low, high = bootstrap_interval(rng.random(100) < 0.7, seed=draw)
        covered += low <= 0.7 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_interval_narrows_and_is_reproducible() -> None:
    few, many = [0.0, 1.0] * 50, [0.0, 1.0] * 5000
    assert bootstrap_interval(few, seed=3) == bootstrap_interval(few, seed=3)
    widths = [high - low for low, high in (bootstrap_interval(few, seed=0), bootstrap_interval(many, seed=0))]
    assert widths[0] == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert widths[1] == pytest.approx(2 * 1.96 * 0.005, rel=0.1)
    assert bootstrap_interval([1.0] * 20, seed=0) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("right", "total", "chance"), [(0, 10, 0.5), (10, 10, 0.5), (140, 500, 0.25), (300, 500, 0.5), (61, 300, 0.2)]
)
def test_p_is_the_binomial_tests(right, total, chance) -> None:
    expected = binomtest(right, total, chance, alternative="greater").pvalue
    assert p_above_chance(right, total, chance) == pytest.approx(expected, rel=1e-9)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="7 of 5"):
        p_above_chance(7, 5, 0.5)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([], seed=0)
