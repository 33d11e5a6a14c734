"""Which arm is best, how sure that is, and the effects of the swept fields."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest

from components.reporting.arm_ranking import Ranking, rank_arms
from components.reporting.collect.report_schema import Curve
from components.reporting.compare_runs import Arm, Comparison, ComparisonLine
from components.reporting.render.comparison_page import render_comparison, render_comparison_markdown, verdicts
from components.reporting.render.ranking_text import effect_verdicts, ranking_data, ranking_verdicts
from mantis.artifacts.scores import Score
from mantis.runs.trials import SweepTrial, TrialState
from mantis.statistics import compare, holm

Right = Sequence[bool]


def arm(run: str, **right: Right) -> Arm:
    """An arm with a score and responses on each benchmark, of one skill."""
    scores = {(name, "skill"): score(name, sum(given) / len(given)) for name, given in right.items()}
    lines = {
        name: {str(n): response(str(n), correct) for n, correct in enumerate(given)} for name, given in right.items()
    }
    return Arm(
        run=run,
        recipe="demo",
        settings={},
        models=(),
        scores=scores,
        lines=lines,
        gallery=(),
        summary={},
        losses=(),
    )


def score(benchmark: str, accuracy: float) -> Score:
    return Score(benchmark=benchmark, skill="skill", samples=100, accuracy=accuracy, low=0, high=1, chance=0.5)


def response(sample: str, correct: bool) -> ComparisonLine:
    given: dict[str, Any] = {"id": sample, "question": "q", "images": (), "skill": "skill", "unit": sample}
    return ComparisonLine(**given, score=float(correct), response="a", correct=correct)


def first(count: int, of: int = 100) -> Right:
    """The first `count` of `of` answers are right."""
    return [number < count for number in range(of)]


def compared(*arms: Arm) -> Comparison:
    return Comparison(
        arms=arms, made=datetime(2026, 1, 2, tzinfo=UTC), rows=(), settings=(), disagreements=(), notes=()
    )


def ranked(*arms: Arm, **changes: dict[str, str]) -> Ranking:
    ranking = rank_arms(compared(*arms), changes)
    assert ranking is not None
    return ranking


GRID = {
    "a": {"training.learning_rate": "2e-4", "training.seed": "1"},
    "b": {"training.learning_rate": "2e-4", "training.seed": "2"},
    "c": {"training.learning_rate": "4e-4", "training.seed": "1"},
    "d": {"training.learning_rate": "4e-4", "training.seed": "2"},
}


def grid() -> tuple[Arm, ...]:
    return arm("a", x=first(50)), arm("b", x=first(54)), arm("c", x=first(80)), arm("d", x=first(82))


def test_every_pair_is_tested_and_all_p_are_corrected_together() -> None:
    ranking = ranked(*grid())
    assert [each.arm.run for each in ranking.arms] == ["d", "c", "b", "a"]
    tests = [pair.paired for pair in ranking.pairs if pair.paired is not None]
    assert len(tests) == 6
    assert [test.corrected_p for test in tests] == holm([test.p for test in tests])
    assert all(test.difference >= 0 for test in tests)
    best = ranking.test_against_best("a")
    assert best is not None
    assert best.difference == pytest.approx(0.32)
    assert best.p == compare([first(50)], [first(82)], seed=0).p
    assert ranking.test_against_best("d") is None


def test_the_page_says_which_arm_is_best_and_how_sure_that_is() -> None:
    ranking = ranked(*grid(), **GRID)
    said = ranking_verdicts(ranking)
    assert said[0] == (
        "d (training.learning_rate = 4e-4, training.seed = 2) has the highest accuracy of 4 runs: 82.0 % on x."
    )
    assert said[1] == "It is significantly better than b and a (p < 0.001)."
    assert said[2] == "The difference to c is not significant."
    comparison = compared(*grid())
    for escaped in (render_comparison(comparison, ranking), render_comparison_markdown(comparison, ranking)):
        text = unescape(escaped).replace("\\", "")
        assert all(sentence in text for sentence in said)
        assert "+32.0 (" in text
        assert "Holm" in text
    assert json.dumps(ranking_data(ranking))


def test_the_page_of_twenty_arms_begins_with_a_short_summary() -> None:
    """The other sentences are folded up below the contents list, and the legend names the changes of each arm."""
    curve = Curve(name="loss", title="Loss", unit="nats", points=((1, 2.0), (2, 1.0)))
    arms = [replace(arm(f"arm-{n}", x=first(50 + n)), losses=(curve,)) for n in range(20)]
    values = {f"arm-{n}": {"training.learning_rate": f"{n % 5}e-4", "training.seed": str(n // 5)} for n in range(20)}
    ranking = ranked(*arms, **values)
    page = unescape(render_comparison(compared(*arms), ranking))
    summary, contents = page.partition("<nav")[0], page.partition("<nav")[2]
    assert summary.count('class="context"') <= 4
    assert "highest accuracy of 20 runs: 69.0 % on x." in summary
    assert "of the 19 other runs" in summary
    sentences = [*effect_verdicts(ranking), *verdicts(compared(*arms))]
    assert len(sentences) > 30
    assert '<a href="#verdicts">' in contents.partition("</nav>")[0]
    folded = contents.partition("<details>")[2].partition("</details>")[0]
    assert all(f"<li>{sentence}</li>" in folded for sentence in sentences)
    keys = page.partition('<ul class="keys">')[2].partition("</ul>")[0]
    assert "training.learning_rate = 3e-4, training.seed = 2</li>" in keys
    assert "arm-" not in keys
    markdown = render_comparison_markdown(compared(*arms), ranking)
    assert markdown.index("## Every verdict") > markdown.index("## Which run is best")


def test_the_effect_of_a_value_is_the_mean_over_arms_that_agree_in_all_else() -> None:
    ranking = ranked(*grid(), **GRID)
    rate, seed = ranking.effects
    assert (rate.field, rate.value, rate.rather_than) == ("training.learning_rate", "4e-4", "2e-4")
    assert rate.each == pytest.approx((0.30, 0.28))
    assert rate.paired.difference == pytest.approx(0.29)
    assert (seed.field, seed.each) == ("training.seed", pytest.approx((0.04, 0.02)))
    assert [rate.paired.corrected_p, seed.paired.corrected_p] == holm([rate.paired.p, seed.paired.p])
    assert rate.paired.significant
    assert (
        "training.learning_rate = 4e-4 is significantly better than 2e-4: +29.0 points, p < 0.001, over 2 pairs"
        in (ranking_verdicts(ranking)[3])
    )


def test_a_field_without_arms_that_agree_in_all_else_has_no_effect() -> None:
    arms = grid()
    assert ranked(arms[0], arms[3], **GRID).effects == ()
    assert ranked(*arms[:2], **GRID).effects == ()  # one pair: the ranking has its test
    assert ranked(*arms).effects == ()  # nothing is known of the changes


def test_each_benchmark_weighs_the_same() -> None:
    ranking = ranked(arm("a", x=first(50), y=first(4, 10)), arm("b", x=first(40), y=first(6, 10)))
    assert [(each.arm.run, each.accuracy) for each in ranking.arms] == [("b", 0.5), ("a", 0.45)]
    test = ranking.pairs[0].paired
    assert test is not None
    assert test.difference == pytest.approx(0.05)
    assert test.test == "paired t-test"
    assert "as the mean over x and y" in ranking_verdicts(ranking)[0]


def test_a_benchmark_that_an_arm_lacks_counts_for_none() -> None:
    ranking = ranked(arm("a", x=first(50), y=first(10)), arm("b", x=first(40)))
    assert ranking.benchmarks == ("x",)
    held_out = {"holdout": first(90)}
    assert ranked(arm("a", x=first(50), **held_out), arm("b", x=first(40), **held_out)).benchmarks == ("x",)
    assert ranked(arm("a", **held_out), arm("b", **held_out)).benchmarks == ("holdout",)
    assert rank_arms(compared(arm("a", x=first(1)), arm("b", y=first(1))), {}) is None


def test_arms_without_a_common_sample_are_not_called_different() -> None:
    other = arm("b", x=first(40))
    asked = {sample: each.model_copy(update={"question": "another"}) for sample, each in other.lines["x"].items()}
    other.lines["x"].update(asked)
    ranking = ranked(arm("a", x=first(50)), other)
    assert ranking.pairs[0].paired is None
    assert "It shares no sample with b, so they cannot be compared." in ranking_verdicts(ranking)


def test_the_page_of_a_search_lists_its_trials() -> None:
    arms = grid()[:2]
    values: dict[str, Any] = {"changes": {"training.seed": "1"}, "values": {"training.seed": 1}}
    trials = [
        SweepTrial(number=0, run="a", state=TrialState.COMPLETE, loss=1.25, points=((10, 1.25),), **values),
        SweepTrial(number=1, run="z", state=TrialState.PRUNED, points=((10, 2.5),), **values),
    ]
    comparison = compared(*arms)
    for text in (
        render_comparison(comparison, ranked(*arms), trials),
        render_comparison_markdown(comparison, ranked(*arms), trials),
    ):
        assert "pruned after step 10" in text
        assert "a (training.seed = 1) has the lowest held-out loss of 1 complete trial: 1.25." in text.replace("\\", "")
        assert "1 of 2 trials was pruned." in text
        assert "1.25" in text
    assert "<h2>Trials</h2>" not in render_comparison(comparison, ranked(*arms))
