from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from mantis.statistics import bootstrap_interval, compare, mcnemar_mid_p, p_above_chance, stratified_interval

DRAWS = 2000


def test_groups_may_weigh_differently() -> None:
    groups, weights = [[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0]], [0.5, 0.25, 0.25]
    centre = 0.5 * 3 / 4 + 0.25 / 3 + 0.25 / 2
    low, high = stratified_interval(groups, seed=0, weights=weights)
    assert low < centre < high
    assert stratified_interval(groups, seed=0, weights=[1 / 3] * 3) == stratified_interval(groups, seed=0)
    assert compare([[0.0] * 4, [0.0] * 3, [0.0] * 2], groups, seed=0, weights=weights).difference == pytest.approx(
        centre
    )
    for wrong in ([0.5, 0.5], [0.5, 0.5, 0.5]):
        with pytest.raises(ValueError, match="3 groups"):
            stratified_interval(groups, seed=0, weights=wrong)


@pytest.mark.parametrize(("size", "chance"), [(100, 0.5), (217, 0.8)])
def test_an_interval_covers_the_truth_as_often_as_it_says(size: int, chance: float) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for draw in range(DRAWS):
        low, high = bootstrap_interval((rng.random(size) < chance).astype(float), seed=draw)
        covered += low <= chance <= high
    assert 0.935 <= covered / DRAWS <= 0.965


def test_an_interval_of_partial_credit_covers_the_truth() -> None:
    rng = np.random.default_rng(8)
    shares, credits = [0.3, 0.1, 0.1, 0.1, 0.4], np.array([0.0, 0.3, 0.6, 0.9, 1.0])  # VQA accuracies
    truth = float(np.dot(shares, credits))
    covered = 0
    for draw in range(DRAWS):
        low, high = bootstrap_interval(rng.choice(credits, size=150, p=shares), seed=draw)
        covered += low <= truth <= high
    assert 0.935 <= covered / DRAWS <= 0.965


def test_an_interval_of_a_macro_average_covers_the_truth() -> None:
    """Tasks of unequal size and difficulty; the small ones are where it would fail."""
    rng = np.random.default_rng(9)
    sizes = [20, 25, 40, 60, 100, 120, 150]
    chances = np.linspace(0.3, 0.85, len(sizes))
    covered = 0
    for draw in range(DRAWS):
        groups = [rng.random(size) < chance for size, chance in zip(sizes, chances, strict=True)]
        low, high = stratified_interval(groups, seed=draw)
        covered += low <= chances.mean() <= high
    assert 0.935 <= covered / DRAWS <= 0.965


@pytest.mark.parametrize("kind", ["right or wrong", "partial credit", "macro average"])
def test_equal_runs_are_rarely_called_different(kind: str) -> None:
    rng = np.random.default_rng(10)
    found = 0
    for draw in range(DRAWS):
        hardness = rng.random(150)

        def answers(hardness: Any = hardness) -> Any:
            right = (rng.random(150) < 0.2 + 0.6 * hardness).astype(float)
            return right * rng.choice([0.3, 0.6, 1.0], 150) if kind == "partial credit" else right

        pair = [answers(), answers()]
        first, second = ([run[:60], run[60:]] if kind == "macro average" else [run] for run in pair)
        found += compare(first, second, seed=draw).significant
    assert 0.02 <= found / DRAWS <= 0.065


def test_a_real_difference_is_found_and_has_a_sign() -> None:
    rng = np.random.default_rng(11)
    first = (rng.random(500) < 0.6).astype(float)
    second = np.where(rng.random(500) < 0.3, 1.0, first)
    found = compare([first], [second], seed=0)
    assert found.test == "mid-p McNemar"
    assert found.significant
    assert 0 < found.low <= found.difference <= found.high
    assert found.difference == pytest.approx(second.mean() - first.mean())
    back = compare([second], [first], seed=0)
    assert back.difference == -found.difference
    assert back.p == found.p


def test_the_same_answers_do_not_differ() -> None:
    right = [1.0, 0.0, 1.0]
    same = compare([right], [right], seed=0)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    half = compare([[0.3, 1.0]], [[0.3, 1.0]], seed=0)
    assert (half.test, half.p) == ("paired bootstrap", 1)
    with pytest.raises(ValueError, match="same samples"):
        compare([right], [right[:2]], seed=0)


def test_mid_p_is_mcnemars() -> None:
    """Fagerland, Lydersen and Laake (2013), table 2: 1 against 7 discordant pairs; exact p 0.070, mid-p 0.039."""
    assert binomtest(1, 8).pvalue == pytest.approx(0.0703, abs=1e-4)
    assert mcnemar_mid_p(1, 7) == pytest.approx(0.0391, abs=1e-4)
    assert mcnemar_mid_p(7, 1) == mcnemar_mid_p(1, 7)
    assert mcnemar_mid_p(0, 0) == 1
    assert mcnemar_mid_p(5, 5) == pytest.approx(1)
    assert mcnemar_mid_p(3000, 3200) == pytest.approx(binomtest(3000, 6200).pvalue, rel=0.05)


def test_an_interval_narrows_and_is_reproducible() -> None:
    few, many = [0.0, 1.0] * 50, [0.0, 1.0] * 5000
    assert bootstrap_interval(few, seed=3) == bootstrap_interval(few, seed=3)
    widths = [high - low for low, high in (bootstrap_interval(few, seed=0), bootstrap_interval(many, seed=0))]
    assert widths[0] == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert widths[1] == pytest.approx(2 * 1.96 * 0.005, rel=0.1)


def test_all_right_is_not_certain() -> None:
    assert bootstrap_interval([1.0] * 20, seed=0) == (pytest.approx(binomtest(20, 20).proportion_ci().low), 1.0)
    assert bootstrap_interval([0.0] * 20, seed=0) == (0.0, pytest.approx(binomtest(0, 20).proportion_ci().high))


@pytest.mark.parametrize(
    ("right", "total", "chance"), [(0, 10, 0.5), (10, 10, 0.5), (140, 500, 0.25), (300, 500, 0.5), (61, 300, 0.2)]
)
def test_p_is_the_binomial_tests(right: int, total: int, chance: float) -> None:
    expected = binomtest(right, total, chance, alternative="greater").pvalue
    assert p_above_chance(right, total, chance) == pytest.approx(expected, rel=1e-9)


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="7 is not between 0 and total = 5"):
        p_above_chance(7, 5, 0.5)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([], seed=0)
