"""Our official scores beside those of the authors' code on tricky responses (tests/golden/official_scores.json)."""

import json
import os
from pathlib import Path

import pytest

from components.evaluation.scoring.score_response import METRICS, score_response
from components.evaluation.scoring.targets import CHOICES, Target
from tests.golden.official_code import OfficialRepositories
from tests.golden.official_responses import CASES
from tests.golden.write_official_scores import FILE, scores

OFFICIAL: dict[str, list[float | None]] = json.loads(FILE.read_text())
REPOSITORIES = os.environ.get("MANTIS_OFFICIAL_REPOS", "")
LEAST = 60  # responses to each metric that the official code decides alone
# Metrics with tests of their own: SQuAD's figures of held-out rows, and the rules in metrics/multi_image.
ELSEWHERE = ("text_overlap", "multi_image.")

# Where we score another way on purpose: an empty response is never right, and spaces around a short answer are no
# mistake.
DEVIATIONS = {
    ("mantis", "red\n"): 1, ("mantis", " red "): 1, ("vqa", ""): 0, ("vqa-literal", ""): 0, ("vqa-evalai", ""): 0,
    ("mirb", ""): 0, ("mirb", " "): 0,
}  # fmt: skip


def ours(metric: str, response: str, target: Target) -> float:
    if metric == "vqa-literal":
        return score_response(response, target, "vqa").variants["literal"]
    return score_response(response, target, metric).official


@pytest.mark.parametrize("metric", CASES)
def test_the_code_of_the_authors_gives_the_same_scores(metric: str) -> None:
    differing = set()
    for (response, target), official in zip(CASES[metric], OFFICIAL[metric], strict=True):
        if official is None:
            continue
        score = ours(metric, response, target)
        if score != pytest.approx(official, abs=1e-5):
            differing.add((metric, response))
            assert score == DEVIATIONS.get((metric, response)), (response, target)
    assert differing == {case for case in DEVIATIONS if case[0] == metric}
    assert sum(official is not None for official in OFFICIAL[metric]) >= LEAST


def test_every_metric_is_checked() -> None:
    others = {name for name, metric in METRICS.items() if metric.module.startswith(ELSEWHERE)}
    assert set(METRICS) - others == set(CASES) - {"vqa-literal"}


def test_a_random_guess_is_its_expected_value() -> None:
    drawn = [case for case, official in zip(CASES["mmmu"], OFFICIAL["mmmu"], strict=True) if official is None]
    assert len(drawn) > 20
    for (response, target), official in zip(CASES["mmmu"], OFFICIAL["mmmu"], strict=True):
        judged = score_response(response, target, "mmmu")
        if official is None:
            assert target.kind in CHOICES
            assert (judged.official, judged.parsed_official) == (0, None)
            assert judged.variants == {"random guess": 1 / len(target.options)}
        else:
            assert judged.variants == {"random guess": official}


@pytest.mark.skipif(not REPOSITORIES, reason="MANTIS_OFFICIAL_REPOS names no folder with the authors' repositories")
@pytest.mark.parametrize("metric", CASES)
def test_the_file_holds_what_the_authors_code_says_today(metric: str, tmp_path: Path) -> None:
    if metric == "mathvista":
        pytest.importorskip("Levenshtein")
    assert scores(metric, OfficialRepositories(Path(REPOSITORIES), tmp_path)) == OFFICIAL[metric]
