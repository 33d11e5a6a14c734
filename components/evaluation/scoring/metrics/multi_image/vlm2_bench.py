"""VLM2-Bench's rules: pairs of statements, counts with partial credit, and groups.

Source: open-compass/VLMEvalKit, vlmeval/dataset/utils/vlm2bench.py, after the authors' scripts (vlm2-bench/VLM2-Bench,
code/*/eval). The sample's category decides the rule. A pair is right if both of its statements are: `fields.unit`
groups them.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.targets import Target

STATEMENT = re.compile(r"\b(t|f|true|false)\b", re.IGNORECASE)
OPTION = re.compile(r"\([A-Z]\)")
DIGITS = re.compile(r"\d+")
UNITS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
HUNDRED, THOUSAND = "hundred", "thousand"
NUMBER_WORD = re.compile(rf"\b({'|'.join([*UNITS, *TENS, HUNDRED, THOUSAND])})\b", re.IGNORECASE)
LONGEST_NUMBER = 18  # digits; a longer number is no count
PENALTY_ROOT = 10  # PENALTY_FACTOR of the source
IMAGES_OF_PENALTY = 4  # L_MAX of the source


def official(response: str, target: Target) -> MetricResult:
    """Score by the rule of the sample's category: `cnt` counts, `grp` groups, all others are statements."""
    kind = str(target.details["category"]).rpartition("-")[2]
    if kind == "cnt":
        return _count(response, target)
    if kind == "grp":
        return _group(response, target)
    said = [word[0].upper() for word in STATEMENT.findall(response)]
    return _result(said[0] if len(said) == 1 else None, target)


def strict(response: str, target: Target) -> MetricResult:
    """Accept only the answer itself: a statement, a number, or an option's letter. Counts get no partial credit."""
    text = response.strip().rstrip(".")
    if str(target.details["category"]).endswith("-cnt"):
        number = _only_number(text)
        return _result(None if number is None else str(number), target)
    if str(target.details["category"]).endswith("-grp"):
        return _result(text.strip("()") if re.fullmatch(r"\(?[A-Z]\)?", text) else None, target, strip="()")
    return _result(text[:1].upper() if STATEMENT.fullmatch(text) else None, target)


def _result(said: str | None, target: Target, *, strip: str = "") -> MetricResult:
    if said is None:
        return NOTHING
    return MetricResult(parsed=said, score=float(said == target.answers[0].strip().strip(strip)))


def _group(response: str, target: Target) -> MetricResult:
    if len(OPTION.findall(response)) > 1:
        return NOTHING
    said, right = (text.partition(")")[0].strip() for text in (response, target.answers[0]))
    return MetricResult(parsed=said or None, score=float(said == right))


def _count(response: str, target: Target) -> MetricResult:
    number = _only_number(response)
    if number is None:
        return NOTHING
    right, images = int(target.answers[0]), int(target.details["images"])
    off = abs(number - right)
    if not off:
        return MetricResult(parsed=str(number), score=1.0)
    largest = max(right - 1, images - right, 1)
    penalty = IMAGES_OF_PENALTY / images * (off / largest) ** (1 / PENALTY_ROOT)
    return MetricResult(parsed=str(number), score=max(0.0, 1 - penalty))


def _only_number(text: str) -> int | None:
    """The only number of the text, in digits or words; all number words together are one number. Else None."""
    digits = DIGITS.findall(text)
    words = _in_words(NUMBER_WORD.findall(text.lower()))
    if len(digits) + (words is not None) != 1:
        return None
    if words is not None:
        return words
    return int(digits[0]) if len(digits[0]) <= LONGEST_NUMBER else None


def _in_words(words: list[str]) -> int | None:
    """The number that the words name; None without words, and for zero.

    The source removes "and", also from "thousand", so that no number with it can be read.
    """
    total = current = 0
    if THOUSAND in words:
        return None
    for word in words:
        if word == HUNDRED:
            total, current = total + max(current, 1) * 100, 0
        else:
            current += (UNITS | TENS)[word]
    return total + current or None
