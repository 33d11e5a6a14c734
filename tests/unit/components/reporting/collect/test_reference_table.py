import pytest

from components.reporting.collect.reference_table import reference_table, verdict_of
from mantis.artifacts.scores import PublishedScore, Score

PAPER = (
    PublishedScore(model="GPT-4V", accuracy=51.1, source="v2"),
    PublishedScore(model="Mantis-CLIP", accuracy=47.1, source="v2"),
    PublishedScore(model="Other split", accuracy=40.0, source="v2", comparable=False),
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
    ("accuracy", "reference", "word"),
    [
        (0.47, "Mantis-CLIP", "reproduced"),
        (0.451, "Mantis-CLIP", "reproduced"),
        (0.449, "Mantis-CLIP", "below"),
        (0.495, "Mantis-CLIP", "above"),
        (0.47, "", "no paper figure"),
        (0.47, "Mantis-SigLIP", "no paper figure"),
        (0.40, "Other split", "no paper figure"),
    ],
)
def test_the_verdict_against_the_papers_row(accuracy: float, reference: str, word: str) -> None:
    held = verdict_of(score(accuracy), reference)
    assert held.word == word
    assert (held.difference is None) == (word == "no paper figure")


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
