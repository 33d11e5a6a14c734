import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm, poisson_binom, t, ttest_ind, ttest_rel

from mantis.statistics import (
    bootstrap_interval,
    compare,
    corrected,
    holm,
    mcnemar_mid_p,
    p_above_chance,
    stratified_interval,
)

DRAWS = 2000
FEWER = 800


@pytest.fixture
def hardly_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of p, which no resample decides; resamples take nearly all of the time of a comparison."""
    monkeypatch.setattr("mantis.statistics.DRAWS", 2)


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
    for draw in range(FEWER):
        low, high = bootstrap_interval((rng.random(size) < chance).astype(float), seed=draw)
        covered += low <= chance <= high
    assert 0.93 <= covered / FEWER <= 0.97


def test_an_interval_of_partial_credit_covers_the_truth() -> None:
    rng = np.random.default_rng(8)
    shares, credits = [0.3, 0.1, 0.1, 0.1, 0.4], np.array([0.0, 0.3, 0.6, 0.9, 1.0])  # VQA accuracies
    truth = float(np.dot(shares, credits))
    covered = 0
    for draw in range(FEWER):
        low, high = bootstrap_interval(rng.choice(credits, size=150, p=shares), seed=draw)
        covered += low <= truth <= high
    assert 0.93 <= covered / FEWER <= 0.97


def test_an_interval_of_a_macro_average_covers_the_truth() -> None:
    """Tasks of unequal size and difficulty; the small ones are where it would fail."""
    rng = np.random.default_rng(9)
    sizes = [20, 25, 40, 60, 100, 120, 150]
    chances = np.linspace(0.3, 0.85, len(sizes))
    covered = 0
    for draw in range(FEWER):
        groups = [rng.random(size) < chance for size, chance in zip(sizes, chances, strict=True)]
        low, high = stratified_interval(groups, seed=draw)
        covered += low <= chances.mean() <= high
    assert 0.93 <= covered / FEWER <= 0.97


@pytest.mark.usefixtures("hardly_resampled")
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


@pytest.mark.parametrize("size", [8, 20])
def test_the_interval_of_a_small_sample_is_widened(size: int) -> None:
    """The plain bootstrap of numpy has the variance of a sample that divides by its size, which is too small."""
    rng = np.random.default_rng(12)
    values = rng.normal(size=size)
    means = rng.choice(values, (200_000, size)).mean(axis=1)
    plain = np.subtract(*np.quantile(means, [0.975, 0.025]))
    low, high = bootstrap_interval(values, seed=0)
    assert (high - low) / plain == pytest.approx(np.sqrt(size / (size - 1)), rel=0.02)


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
    assert (half.test, half.p, half.needed) == ("paired t-test", 1, None)
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
def test_p_of_equal_chances_is_the_binomial_tests(right: int, total: int, chance: float) -> None:
    expected = binomtest(right, total, chance, alternative="greater").pvalue
    assert p_above_chance(right, [chance] * total) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("right", [0, 1, 40, 90, 120, 150, 299, 300])
def test_p_of_different_chances_is_poisson_binomial(right: int) -> None:
    chances = np.random.default_rng(3).choice([0.0039, 0.2, 0.25, 1 / 3, 0.5], 300)
    assert p_above_chance(right, chances) == pytest.approx(poisson_binom(chances).sf(right - 1), rel=1e-6, abs=1e-12)


def test_p_of_many_guesses_takes_seconds() -> None:
    chances = np.random.default_rng(4).choice([0.5, 0.95], 80_000)  # the yes-or-no questions of VQAv2
    began = time.process_time()
    assert 0.4 < p_above_chance(int(chances.sum()), chances) < 0.6
    assert time.process_time() - began < 10


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="7 is not between 0 and 5"):
        p_above_chance(7, [0.5] * 5)
    with pytest.raises(ValueError, match="a chance is not between"):
        p_above_chance(1, [0.5, 1.5])
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([], seed=0)
    with pytest.raises(ValueError, match="the cluster of each value"):
        stratified_interval([[1.0, 0.0]], seed=0, clusters=[["a"]])


def clustered(rng: np.random.Generator, clusters: int, each: int) -> tuple[Any, Any]:
    """Answers to `each` questions about every image: half of the images are hard."""
    chance = np.repeat(rng.choice([0.2, 0.8], clusters), each)
    return (rng.random(clusters * each) < chance).astype(float), np.repeat(np.arange(clusters), each)


def test_an_interval_of_clusters_covers_the_truth_and_one_of_samples_does_not() -> None:
    rng = np.random.default_rng(12)
    covered = {"clusters": 0, "samples": 0}
    for draw in range(FEWER):
        values, images = clustered(rng, clusters=80, each=5)
        for kind, labels in (("clusters", [images]), ("samples", None)):
            low, high = stratified_interval([values], seed=draw, clusters=labels)
            covered[kind] += low <= 0.5 <= high
    assert 0.925 <= covered["clusters"] / FEWER <= 0.97
    assert covered["samples"] / FEWER < 0.9


def test_clusters_of_one_change_nothing() -> None:
    values = (np.random.default_rng(13).random(200) < 0.7).astype(float)
    alone = stratified_interval([values], seed=0, clusters=[range(200)])
    assert alone == pytest.approx(stratified_interval([values], seed=0))


@pytest.mark.usefixtures("hardly_resampled")
def test_equal_runs_on_shared_images_are_rarely_called_different() -> None:
    rng = np.random.default_rng(14)
    found = {"paired t-test": 0, "mid-p McNemar": 0}
    for draw in range(FEWER):
        first = np.repeat((rng.random(60) < 0.5).astype(float), 5)  # a run answers all questions about an image alike
        second = np.repeat((rng.random(60) < 0.5).astype(float), 5)
        images = np.repeat(np.arange(60), 5)
        for labels in ([images], None):
            tested = compare([first], [second], seed=draw, clusters=labels)
            found[tested.test] += tested.significant
    assert 0.02 <= found["paired t-test"] / FEWER <= 0.075
    assert found["mid-p McNemar"] / FEWER > 0.2  # which takes the samples as independent


@pytest.mark.usefixtures("hardly_resampled")
def test_as_many_samples_as_needed_see_a_point() -> None:
    rng = np.random.default_rng(15)

    def runs(samples: int) -> tuple[Any, Any]:
        first = rng.random(samples)
        flip = rng.random(samples)  # 5 % become wrong, 6 % right: the second run is a point better
        right = first < 0.5
        return right.astype(float), np.where(right, flip > 0.10, flip < 0.12).astype(float)

    needed = compare(*([run] for run in runs(2000)), seed=0).needed
    assert needed is not None
    assert 7_000 < needed < 11_000  # 7.85 * 0.11 / 0.01^2
    seen = 0
    for draw in range(200):
        found = compare(*([run] for run in runs(needed)), seed=draw)
        seen += found.p < 0.05 and found.difference > 0
    assert 0.72 <= seen / 200 <= 0.88


def test_a_difference_without_variance_is_tested_by_its_signs() -> None:
    found = compare([[0.0] * 3, [0.3] * 3], [[0.5] * 3, [0.8] * 3], seed=0)
    assert found.p == pytest.approx(2 * 0.5**6)


def test_holm_corrects_for_the_number_of_tests() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # as R's p.adjust
    assert holm([]) == []
    assert holm([0.7]) == [0.7]
    rng = np.random.default_rng(16)
    false = sum(min(holm(list(rng.random(20)))) < 0.05 for _ in range(DRAWS))
    assert 0.03 <= false / DRAWS <= 0.065
    pairs = [
        compare([[1.0] * 9 + [0.0] * 9], [[1.0] * 9 + [float(k < n) for k in range(9)]], seed=0) for n in (7, 5, 0)
    ]
    after = corrected(pairs)
    assert [test.p for test in after] == [test.p for test in pairs]
    assert after[0].corrected_p == 3 * pairs[0].p
    assert [pair.significant for pair in pairs] == [True, True, False]
    assert [test.significant for test in after] == [True, False, False]


GROUPS = [[1.0, 0.0, 1.0, 1.0, 0.5], [0.0, 0.25, 1.0], [1.0, 0.0]]
OTHERS = [[0.0, 0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 1.0], [0.25, 0.5]]


def test_a_paired_test_of_one_group_is_scipys() -> None:
    first, second = [0.1, 0.4, 0.35, 0.8, 0.6, 0.2], [0.3, 0.35, 0.6, 0.9, 0.55, 0.5]
    expected = ttest_rel(second, first)
    found = compare([first], [second], seed=0)
    assert found.test == "paired t-test"
    assert found.p == found.corrected_p == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.difference == pytest.approx(np.mean(second) - np.mean(first))
    assert found.samples == 6


def test_a_paired_test_of_two_groups_is_welchs() -> None:
    """The mean of two means is 0 exactly where the two means differ by twice the first: Welch's test of a and -b."""
    first = [[0.0] * 5, [0.0] * 3]
    second = [[0.9, 0.1, 0.5, 0.7, 0.2], [0.6, -0.2, 0.4]]
    expected = ttest_ind(second[0], [-value for value in second[1]], equal_var=False)
    assert compare(first, second, seed=0).p == pytest.approx(expected.pvalue, rel=1e-12)


def test_a_paired_test_of_equal_clusters_is_that_of_their_means() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random(12), rng.random(12)
    images = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    expected = ttest_rel(second.reshape(4, 3).mean(axis=1), first.reshape(4, 3).mean(axis=1))
    found = compare([first], [second], seed=0, clusters=[images])
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    # 12 samples have the standard error of the four clusters.
    error = np.std((second - first).reshape(4, 3).mean(axis=1), ddof=1) / 2
    assert found.needed == math.ceil(12 * (error * (norm.ppf(0.975) + norm.ppf(0.8)) / 0.01) ** 2)


def test_which_test_is_taken() -> None:
    right, wrong = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]
    exact = compare([wrong], [right], seed=0)
    assert (exact.test, exact.p) == ("mid-p McNemar", mcnemar_mid_p(2, 0))
    assert compare([right], [wrong], seed=0).p == mcnemar_mid_p(0, 2)
    assert compare([right, right], [wrong, wrong], seed=0).test == "paired t-test"
    assert compare([wrong], [[1.0, 1.0, 0.0, 0.5]], seed=0).test == "paired t-test"
    assert compare([wrong], [right], seed=0, clusters=[[0, 0, 1, 2]]).test == "paired t-test"
    assert compare([wrong], [right], seed=0, clusters=[["a", "b", "c", "d"]]).test == "mid-p McNemar"


def test_an_interval_of_groups_is_that_of_a_plain_bootstrap() -> None:
    """Every value drawn by itself, in a loop over groups; the widened means are cut at the values that are there."""
    rng = np.random.default_rng(0)
    weights = [0.5, 0.3, 0.2]
    total = np.zeros(200_000)
    for group, weight in zip(GROUPS, weights, strict=True):
        size = len(group)
        means = rng.choice(group, (len(total), size)).mean(axis=1)
        widened = np.mean(group) + np.sqrt(size / (size - 1)) * (means - np.mean(group))
        total += weight * np.clip(widened, min(group), max(group))
    low, high = stratified_interval(GROUPS, seed=1, weights=weights)
    assert (low, high) == pytest.approx(tuple(np.quantile(total, [0.025, 0.975])), abs=0.05)
    assert 0 <= low < high <= 1


def test_an_interval_of_clusters_is_that_of_a_plain_bootstrap() -> None:
    values, images = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.5, 1.0], [0, 0, 0, 1, 1, 2, 2, 3]
    clusters = [[1.0, 1.0, 0.0], [1.0, 0.0], [0.0, 0.5], [1.0]]
    rng = np.random.default_rng(0)
    sums, sizes = np.array([sum(each) for each in clusters]), np.array([len(each) for each in clusters])
    drawn = rng.integers(0, 4, (200_000, 4))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    widened = np.mean(values) + np.sqrt(4 / 3) * (means - np.mean(values))
    plain = np.quantile(np.clip(widened, (sums / sizes).min(), (sums / sizes).max()), [0.025, 0.975])
    assert stratified_interval([values], seed=2, clusters=[images]) == pytest.approx(tuple(plain), abs=0.06)


def test_an_interval_without_variance_is_the_exact_bound_of_its_clusters() -> None:
    alone = binomtest(4, 4).proportion_ci().low
    assert stratified_interval([[1.0] * 8], seed=0, clusters=[[0, 0, 1, 1, 2, 2, 3, 3]]) == (pytest.approx(alone), 1.0)
    # Two groups of 6 and 3 with equal weights have the variance of 8 values: 1 / (0.25 / 6 + 0.25 / 3).
    assert stratified_interval([[1.0] * 6, [1.0] * 3], seed=0) == (
        pytest.approx(binomtest(8, 8).proportion_ci().low),
        1,
    )
    margin = 1 - 0.025 ** (1 / 5)
    assert bootstrap_interval([0.5] * 5, seed=0) == pytest.approx((max(0.0, 0.5 - margin), min(1.0, 0.5 + margin)))
    wide = 1 - 0.025 ** (1 / 20)
    assert bootstrap_interval([0.5] * 20, seed=0) == pytest.approx((0.5 - wide, 0.5 + wide))


def test_a_difference_lies_within_its_interval() -> None:
    for seed in range(5):
        found = compare(OTHERS, GROUPS, seed=seed)
        assert found.low < found.difference < found.high
        by_group = [np.mean(ours) - np.mean(theirs) for ours, theirs in zip(GROUPS, OTHERS, strict=True)]
        assert found.difference == pytest.approx(np.mean(by_group))
        assert found.samples == 10
    again = compare(OTHERS, GROUPS, seed=3)
    assert (again.low, again.high) == (compare(OTHERS, GROUPS, seed=3).low, compare(OTHERS, GROUPS, seed=3).high)
    assert (again.low, again.high) != (found.low, found.high)


def test_samples_without_variance_need_no_number() -> None:
    assert compare([[0.0, 0.0]], [[0.5, 0.5]], seed=0).needed is None
    one = compare([[0.0]], [[0.5]], seed=0)
    assert (one.needed, one.p, one.difference) == (None, 1.0, 0.5)
    two = compare([[0.0] * 2, [0.0] * 3], [[0.5] * 2, [0.5, 0.6, 0.7]], seed=0)
    variance = np.var([0.5, 0.6, 0.7], ddof=1) / 3 / 4  # of the mean of two means; the first does not vary
    assert two.needed == math.ceil(5 * variance * ((norm.ppf(0.975) + norm.ppf(0.8)) / 0.01) ** 2)
    assert two.p == pytest.approx(2 * t.sf(two.difference / np.sqrt(variance), 2), rel=1e-12)


def test_a_comparison_at_the_level_is_not_significant() -> None:
    pair = compare([[0.0, 1.0]], [[1.0, 1.0]], seed=0)
    assert not replace(pair, corrected_p=0.05 + 1e-12).significant
    assert replace(pair, corrected_p=0.05 - 1e-12).significant


@pytest.mark.parametrize("wrong", [[], [[]], [[1.0], []]])
def test_an_empty_group_is_refused(wrong: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least one value in each group"):
        stratified_interval(wrong, seed=0)


def test_the_edges_of_guessing() -> None:
    assert p_above_chance(0, []) == pytest.approx(1.0)
    assert p_above_chance(0, [0.0, 1.0]) == pytest.approx(1.0)
    assert p_above_chance(2, [0.0, 1.0]) == pytest.approx(0.0)
    assert p_above_chance(1, [0.2, 0.3]) == pytest.approx(1 - 0.8 * 0.7)
    assert p_above_chance(2, [0.2, 0.3, 0.3]) == pytest.approx(2 * 0.2 * 0.3 * 0.7 + 0.8 * 0.09 + 0.2 * 0.09)
    for wrong in ([-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(ValueError, match="a chance is not between 0 and 1"):
            p_above_chance(1, wrong)
    with pytest.raises(ValueError, match="correct = -1 is not between 0 and 2"):
        p_above_chance(-1, [0.5, 0.5])
