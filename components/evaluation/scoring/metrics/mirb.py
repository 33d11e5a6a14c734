"""Scores MIRB as its own code does (ys-zong/MIRB, evals/eval.py).

The answer is the response's first line, else its first sentence. The subset decides the comparison:
- counting: the answer's first digits, or the number word that it consists of, must be the right number;
- yes and no: the answer means yes if "yes" occurs in it;
- `sightseeing`: the right answer must occur in it;
- others: it must equal the right answer, except for case.
"""

import re

from components.evaluation.scoring.answer_extraction import stated, strict_option
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen
from components.evaluation.scoring.targets import LETTERS, Target

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
OPTIONS = tuple(LETTERS[:10])  # the rows hold no list of options


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
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
    """The last stated answer must equal the right one. A number may be a word; an option is read as in a choice."""
    if len(target.answers[0]) == 1 and target.answers[0].isalpha():
        return chosen(strict_option(response, OPTIONS), target)
    said = stated(response).casefold()
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
