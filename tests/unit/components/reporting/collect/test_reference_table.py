import pytest

from components.reporting.collect.reference_table import reference_table, verdict_of
from mantis.artifacts.scores import PublishedScore, Score

PAPER = (
    PublishedScore(model="GPT-4V", accuracy=51.1, source="v2"),
    PublishedScore(model="Mantis-CLIP", accuracy=47.1, source="v2"),
    PublishedScore(model="Other split", accuracy=40.0, source="v2", comparable=False, reason="Another split."),
)


def score(accuracy: float, paper: tuple[PublishedScore, ...] = PAPER, benchmark: str = "blink") -> Score:
    return Score(
        benchmark=benchmark,
        skill="overall",
        label=benchmark.upper(),
        aggregation="macro",
        samples=1901,
        accuracy=accuracy,
        low=accuracy - 0.02,
        high=accuracy + 0.02,
        chance=0.38,
        paper=paper,
    )


@pytest.mark.parametrize(
    ("accuracy", "half", "reference", "word"),
    [
        (0.47, 0.02, "Mantis-CLIP", "reproduced"),
        (0.48, 0.02, "Mantis-CLIP", "reproduced"),
        (0.485, 0.02, "Mantis-CLIP", "undecided"),  # 46.5 to 50.5 reaches further than 50.1
        (0.49, 0.005, "Mantis-CLIP", "reproduced"),  # surely another score, but within the margin
        (0.47, 0.066, "Mantis-CLIP", "undecided"),  # as Mantis-Eval with its 217 samples
        (0.449, 0.02, "Mantis-CLIP", "below"),
        (0.495, 0.02, "Mantis-CLIP", "above"),
        (0.47, 0.02, "", "no paper figure"),
        (0.47, 0.02, "Mantis-SigLIP", "no paper figure"),
        (0.40, 0.02, "Other split", "not comparable"),
    ],
)
def test_the_verdict_against_the_papers_row(accuracy: float, half: float, reference: str, word: str) -> None:
    given = score(accuracy).model_copy(update={"low": accuracy - half, "high": accuracy + half})
    held = verdict_of(given, reference, margin=3)
    assert held.word == word
    assert (held.difference is None) == (word in ("no paper figure", "not comparable"))
    assert bool(held.reason) == (word != "no paper figure")


def test_a_reason_names_the_width_the_margin_or_what_differs() -> None:
    assert verdict_of(score(0.40), "Other split", margin=3).reason == "Another split."
    wide = score(0.47).model_copy(update={"low": 0.40, "high": 0.53})
    assert verdict_of(wide, "Mantis-CLIP", margin=3).reason == (
        "The interval of ±6.5 points is too wide for a margin of 3 points."
    )
    assert verdict_of(wide, "Mantis-CLIP", margin=7.5).word == "reproduced"


def test_a_score_of_responses_without_answers_gets_its_own_verdict() -> None:
    held = verdict_of(score(0.47).model_copy(update={"unparsed": 1000}), "Mantis-CLIP", margin=3)
    assert (held.word, held.difference) == ("not parsed", None)
    assert held.reason == "No answer was found in 1,000 of 1,901 responses."


def test_ours_stands_where_it_belongs() -> None:
    other = score(0.6, benchmark="nlvr2", paper=(PublishedScore(model="GPT-4V", accuracy=88.8),))
    found = reference_table([score(0.50), other, score(0.1, paper=(), benchmark="own")], "run-1")
    assert [each.benchmark for each in found.benchmarks] == ["blink", "nlvr2"]
    assert [rung.model for rung in found.rungs] == ["GPT-4V", "run-1", "Mantis-CLIP", "Other split"]
    assert [rung.ours for rung in found.rungs] == [False, True, False, False]
    assert found.rungs[1].accuracies == (50, 60)
    assert found.rungs[2].accuracies == (47.1, None)
    assert found.sources == ("v2",)
    assert reference_table([score(0.1, paper=())], "run-1") is None
