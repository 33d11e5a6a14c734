from typing import Any

import pytest

from components.reporting.collect.verdict import verdict
from mantis.artifacts.scores import Score


def score(
    accuracy: float,
    *,
    low: float | None = None,
    chance: float = 0.25,
    blind_p: float = 0.5,
    shuffled_p: float = 0.5,
    controls: Any = ("blind", "shuffled"),
    unparsed: int | None = 0,
    benchmark: str = "b",
) -> Score:
    given = {"blind": (chance, blind_p), "shuffled": (chance, shuffled_p)}
    measured = {name: given[name][0] for name in controls} | {f"{name}_p": given[name][1] for name in controls}
    return Score(
        benchmark=benchmark,
        skill="s",
        label="Skill",
        samples=100,
        accuracy=accuracy,
        low=accuracy - 0.05 if low is None else low,
        high=accuracy + 0.05,
        chance=chance,
        unparsed=unparsed,
        **measured,
    )


HIGH, LOW = score(0.9), score(0.27)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([HIGH] * 5, "All 5 skills are above chance; the blind and shuffled controls are not."),
        ([HIGH, HIGH, LOW], "2 of 3 skills are above chance; the blind and shuffled controls are not."),
        ([HIGH, LOW], "1 of 2 skills is above chance; the blind and shuffled controls are not."),
        ([HIGH], "The one skill is above chance; the blind and shuffled controls are not."),
        (
            [LOW, LOW],
            "None of the 2 skills is above chance: the model is no better than guessing. "
            "The blind and shuffled controls are not above chance either.",
        ),
        ([score(0.9, controls=("blind",))], "The one skill is above chance; the blind control is not."),
        (
            [score(0.9, controls=())],
            "The one skill is above chance. No controls were run, so the scores may not come from the images.",
        ),
        (
            [HIGH, score(0.9, blind_p=0.0004)],
            "All 2 skills are above chance. But a control is above chance, so part of it does not come from the "
            "images: Skill (blind).",
        ),
        (
            [score(0.9, blind_p=0.0004, shuffled_p=0.0001)],
            "The one skill is above chance. But 2 controls are above chance, so part of it does not come from the "
            "images: Skill (blind), Skill (shuffled).",
        ),
        ([], "The run has no scores, so this report cannot judge the model."),
        (
            [score(0.0, unparsed=100)] * 5,
            "Most responses of all 5 skills hold no answer that could be read (500 of 500), so this report cannot "
            "judge the model.",
        ),
        (
            [score(0.1, unparsed=51)],
            "Most responses of the one skill hold no answer that could be read (51 of 100), so this report cannot "
            "judge the model.",
        ),
        (
            [HIGH, LOW, score(0.9, unparsed=60)],
            "Most responses of 1 of 3 skills hold no answer that could be read (60 of 100). 1 of 2 skills is above "
            "chance; the blind and shuffled controls are not.",
        ),
        ([score(0.9, unparsed=50)], "The one skill is above chance; the blind and shuffled controls are not."),
    ],
)
def test_the_verdict_in_words(scores: list[Score], words: str) -> None:
    assert verdict(scores) == words


def test_an_interval_that_touches_chance_is_not_above_it() -> None:
    assert not score(0.30, low=0.25).above_chance
    assert score(0.30, low=0.2501).above_chance


def test_several_benchmarks_share_the_level_of_the_controls() -> None:
    one = [score(0.9, blind_p=0.0004)]
    assert "a control is above chance" in verdict(one)
    assert "a control is above chance" not in verdict([*one, score(0.9, benchmark="c"), score(0.9, benchmark="d")])
    lower = [score(0.9, blind_p=0.0003), score(0.9, benchmark="c"), score(0.9, benchmark="d")]
    assert "a control is above chance" in verdict(lower)


def test_a_corrected_p_counts_where_there_is_one() -> None:
    raw = score(0.9, blind_p=0.0004)
    assert "a control is above chance" not in verdict([raw.model_copy(update={"blind_corrected_p": 0.02})])
    overall = raw.model_copy(update={"aggregation": "micro", "label": "All", "blind_corrected_p": 0.0001})
    assert "images: All (blind)." in verdict([overall, HIGH])
