"""MIRB as its own code judges it (ys-zong/MIRB, evals/eval.py).

Of the first line (else the first sentence): for counting subsets its first digits, or the number that it spells out;
for yes and no whether "yes" occurs; for `sightseeing` whether the answer occurs; else it has to be the answer, but for
case.
"""

import re

from components.evaluation.scoring.answer_extraction import stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.targets import Target

DIGITS = re.compile(r"\d+")
NUMBERS = {
    word: str(number)
    for words in (
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
        ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    )
    for number, word in enumerate(words)
    if word
}
COUNTED = ("count", "visual_chain", "3d_scene")
YES_NO = ("analogy", "attribute")
CONTAINED = ("sightseeing",)


def official(response: str, target: Target) -> MetricResult:
    """As the module says."""
    said, right = _first(response), target.answers[0].lower()
    subset = target.details["subset"]
    if not said:
        return NOTHING
    if subset in YES_NO or (subset in CONTAINED and right in ("yes", "no")):
        meant = "yes" if "yes" in said.lower() else "no"
        return MetricResult(parsed=meant, score=float(meant == right))
    if subset in CONTAINED:
        return MetricResult(parsed=said, score=float(right in said.lower()))
    if subset in COUNTED:
        counted = _number(said)
        return MetricResult(parsed=counted, score=float(counted == right))
    return MetricResult(parsed=said, score=float(said.lower() == right))


def strict(response: str, target: Target) -> MetricResult:
    """What is stated last has to be the answer itself: a number may be spelt out, an option may be in brackets."""
    said = stated(response).casefold()
    if len(target.answers[0]) == 1:
        said = said.strip("()")
    if not said:
        return NOTHING
    if target.details["subset"] in COUNTED:
        said = NUMBERS.get(said, said)
    return MetricResult(parsed=said, score=float(said == target.answers[0].strip().casefold()))


def _first(response: str) -> str:
    text = response.strip()
    end = text.find("\n")
    if end <= 0:
        end = text.find(".")
    return text[:end] if end > 0 else text


def _number(text: str) -> str | None:
    digits = DIGITS.search(text)
    return digits[0] if digits else NUMBERS.get(text.lower())
