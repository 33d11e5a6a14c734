"""VQA accuracy: VQAv2 by GT-Vision-Lab/VQA (vqaEval.py), TextVQA and OK-VQA by EvalAI's form of it, as in lmms-eval.

vqaEval.py leaves all texts unchanged where the ten answers are alike. So "Yes" is wrong where ten people said "yes".
`official` always normalizes, as lmms-eval does (vqav2/utils.py) and LLaVA before it submits
(scripts/convert_vqav2_for_submission.py). `literal` keeps the exception.

Ten people answered each question. For each way to leave one of them out, a response scores min(1, n / 3), where n of
the other nine gave it. Its accuracy is the mean of the ten scores: 0, 0.3, 0.6, 0.9 or 1.

Responses and answers are normalized first (normalization.yaml): digits for number words, no articles, apostrophes in
contractions, no punctuation.
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.evaluation.scoring.answer_extraction import stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.response_text import RECENT, CachedIfShort
from components.evaluation.scoring.targets import Target
from mantis.config.bounded_yaml import parse_yaml

NORMALIZATION = Path(__file__).with_name("normalization.yaml")
ENOUGH = 3  # an answer that 3 people gave is fully right
DIGIT_COMMA = re.compile(r"\d,\d")
# Both official implementations remove a full stop unless a digit follows, even after a digit. They pass `re.UNICODE`
# where `re.sub` takes a number, so they remove at most that number of full stops.
FULL_STOP = re.compile(r"\.(?!\d)")
FULL_STOPS = int(re.UNICODE)


def official(response: str, target: Target) -> MetricResult:
    """Score VQAv2 with the normalization that every peer applies."""
    said = _one_line(response)
    return _read(normalize(said), target, _normalized_line) if said else NOTHING


def literal(response: str, target: Target, read: MetricResult) -> MetricResult:
    """Score VQAv2 as vqaEval.py does. If all people gave the same answer, nothing is normalized."""
    said = _one_line(response)
    if said and len({_one_line(answer) for answer in set(target.answers)}) == 1:
        return _read(said, target, _one_line)
    return read


def official_evalai(response: str, target: Target) -> MetricResult:
    """Score TextVQA and OK-VQA. Responses and answers are always normalized by `evalai`."""
    return _read(evalai(response), target, evalai) if response.strip() else NOTHING


def strict(response: str, target: Target) -> MetricResult:
    """The official accuracy of the last stated answer. A verbose response is right if it ends with "Answer: ..."."""
    said = stated(response)
    return official_evalai(said, target) if said else NOTHING


@CachedIfShort
def normalize(text: str) -> str:
    """Normalize punctuation, numbers, articles and contractions, as processPunctuation and processDigitArticle do."""
    rules = _rules()
    bare = _without_punctuation(text)
    words = [rules["numbers"].get(word, word) for word in bare.lower().split()]
    kept = [word for word in words if word not in rules["articles"]]
    return " ".join(rules["contractions"].get(word, word) for word in kept)


def _without_punctuation(text: str) -> str:
    # A mark is removed if a space touches it anywhere in the text, or if a comma groups digits ("1,000"). Else it
    # becomes a space ("red/blue").
    grouped = DIGIT_COMMA.search(text) is not None
    bare = text
    for mark in _rules()["punctuation"]:
        if mark in text:
            touched = f"{mark} " in text or f" {mark}" in text
            bare = bare.replace(mark, "" if grouped or touched else " ")
    return FULL_STOP.sub("", bare, count=FULL_STOPS)


def _normalized_line(text: str) -> str:
    return normalize(_one_line(text))


@CachedIfShort
def evalai(text: str) -> str:
    """Normalize as EvalAI does: remove commas and question marks, detach `'s`, then call `normalize`."""
    words = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalize(_one_line(words))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _read(said: str, target: Target, alike: Callable[[str], str]) -> MetricResult:
    """Count the people who gave the answer `said`. `alike` normalizes their answers before."""
    same = sum(people for answer, people in _people(target.answers).items() if alike(answer) == said)
    return MetricResult(parsed=said or None, score=_accuracy(same, len(target.answers)))


@lru_cache(maxsize=RECENT)
def _people(answers: tuple[str, ...]) -> Counter[str]:
    """Number of people who gave each answer."""
    return Counter(answers)


@lru_cache
def _accuracy(same: int, people: int) -> float:
    """Mean score over all ways to leave one of `people` out, where `same` of them gave the response."""
    if not people:
        return 0.0
    return (same * min(1, (same - 1) / ENOUGH) + (people - same) * min(1, same / ENOUGH)) / people


@lru_cache
def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = parse_yaml(NORMALIZATION.read_text())
    return rules
