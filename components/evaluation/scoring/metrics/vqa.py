"""VQA accuracy: VQAv2 by GT-Vision-Lab/VQA (vqaEval.py), TextVQA and OK-VQA by the EvalAI form of it, as in lmms-eval.

Ten people answered. Against each nine of them, leaving one out, an answer is worth min(1, how many gave it / 3); the
mean over the ten is its accuracy: 0, 0.3, 0.6, 0.9 or 1 for ten answers. Both sides are normalized first (normalization
.yaml: numbers as digits, no articles, contractions with their apostrophe, punctuation away).
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from components.evaluation.scoring.answer_extraction import stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.targets import Target

NORMALIZATION = Path(__file__).with_name("normalization.yaml")
ENOUGH = 3  # people who gave it make an answer fully right
DIGIT_COMMA = re.compile(r"\d,\d")
# Of both official codes: a full stop goes where no digit follows, whatever stands before it.
FULL_STOP = re.compile(r"\.(?!\d)")


def official(response: str, target: Target) -> MetricResult:
    """VQAv2: nothing is normalized where all ten gave the same answer."""
    said, given = _one_line(response), _tally(target, _one_line)
    if not said:
        return NOTHING
    if len(given) > 1:
        said, given = normalize(said), _tally(target, lambda answer: normalize(_one_line(answer)))
    return _read(said, given)


def official_evalai(response: str, target: Target) -> MetricResult:
    """TextVQA, OK-VQA: everything is normalized, commas and question marks go first, `'s` becomes a word."""
    return _read(evalai(response), _tally(target, evalai)) if response.strip() else NOTHING


def strict(response: str, target: Target) -> MetricResult:
    """The official accuracy of what is stated last: a verbose response is right if it ends in "Answer: ..."."""
    said = stated(response)
    return official_evalai(said, target) if said else NOTHING


@lru_cache(maxsize=262_144)
def normalize(text: str) -> str:
    """Punctuation, numbers, articles and contractions, as processPunctuation and processDigitArticle do."""
    rules = _rules()
    bare = _without_punctuation(text)
    words = [rules["numbers"].get(word, word) for word in bare.lower().split()]
    kept = [word for word in words if word not in rules["articles"]]
    return " ".join(rules["contractions"].get(word, word) for word in kept)


def _without_punctuation(text: str) -> str:
    # A mark vanishes where a space touches it anywhere in the text, or where digits are grouped by a comma ("1,000");
    # else it becomes a space ("red/blue").
    grouped = DIGIT_COMMA.search(text) is not None
    bare = text
    for mark in _rules()["punctuation"]:
        if mark in text:
            touched = f"{mark} " in text or f" {mark}" in text
            bare = bare.replace(mark, "" if grouped or touched else " ")
    return FULL_STOP.sub("", bare)


@lru_cache(maxsize=262_144)
def evalai(text: str) -> str:
    """As EvalAI: commas and question marks away and `'s` apart before `normalize`."""
    words = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalize(_one_line(words))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _tally(target: Target, alike: Callable[[str], str]) -> Counter[str]:
    """How many people gave each answer, those that are `alike` as one."""
    tally: Counter[str] = Counter()
    for answer, people in Counter(target.answers).items():
        tally[alike(answer)] += people
    return tally


def _read(said: str, given: Counter[str]) -> MetricResult:
    return MetricResult(parsed=said or None, score=_accuracy(given[said], given.total()))


@lru_cache
def _accuracy(same: int, people: int) -> float:
    """Mean over leaving each one out: `same` of the people are left with one fewer who agrees."""
    if not people:
        return 0.0
    return (same * min(1, (same - 1) / ENOUGH) + (people - same) * min(1, same / ENOUGH)) / people


@lru_cache
def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = yaml.safe_load(NORMALIZATION.read_text())
    return rules
