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
) -> Score:
    given = {"blind": (chance, blind_p), "shuffled": (chance, shuffled_p)}
    measured = {name: given[name][0] for name in controls} | {f"{name}_p": given[name][1] for name in controls}
    return Score(
        benchmark="b",
        skill="s",
        label="Skill",
        samples=100,
        accuracy=accuracy,
        low=accuracy - 0.05 if low is None else low,
        high=accuracy + 0.05,
        chance=chance,
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
    ],
)
def test_the_verdict_in_words(scores: list[Score], words: str) -> None:
    assert verdict(scores) == words


def test_an_interval_that_touches_chance_is_not_above_it() -> None:
    assert not score(0.30, low=0.25).above_chance
    assert score(0.30, low=0.2501).above_chance
