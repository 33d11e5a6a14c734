"""Scores MathVista by its own rules (lupantech/MathVista, evaluation/), but without GPT-4.

The official code works in two steps:
1. extract_answer.py keeps a response that is an option or a number. GPT-4 extracts the answer from any other response.
2. calculate_score.py turns the extraction into an option (a letter in brackets, a letter, or the most similar text), an
   integer, or a number of `precision` decimals. Then it compares.

This module uses the last stated answer as the extraction, and the last number in it. So verbose models get lower scores
than the published ones.
"""

import re
from functools import lru_cache

from components.evaluation.scoring.answer_extraction import stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen, strict_choice
from components.evaluation.scoring.targets import LETTERS, Target

QUOTED = re.compile(r'The answer is "(.*)"\.')
BRACKETED = re.compile(r"\(([a-zA-Z])\)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|-?\.\d+")
GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")
LIST = re.compile(r"\[[^\[\]]*\]")
LONGEST = 200  # characters; only a model could find the answer in a longer text


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
    if target.kind == "multiple-choice":
        return chosen(_option(response.strip(), target), target)
    said = _value(_extracted(response), target)
    right = _value(target.answers[0], target)
    return NOTHING if said is None else MetricResult(parsed=said, score=float(said == right))


def strict(response: str, target: Target) -> MetricResult:
    """Score choices by `strict_choice`. A number or a list must be the whole stated answer."""
    if target.kind == "multiple-choice":
        return strict_choice(response, target)
    text = GROUPED.sub("", stated(response))
    alone = (LIST if target.details["answer_type"] == "list" else NUMBER).fullmatch(text)
    said = _value(text, target) if alone else None
    return (
        NOTHING if said is None else MetricResult(parsed=said, score=float(said == _value(target.answers[0], target)))
    )


def _option(response: str, target: Target) -> str | None:
    if response in target.options:
        return target.letters[target.options.index(response)]
    extracted = _extracted(response)
    if not extracted or len(extracted) > LONGEST:
        return None
    letter = BRACKETED.search(extracted)
    named = letter[1].upper() if letter else extracted
    if len(named) == 1 and named in target.letters:
        return named
    return most_similar(named, target.options)


def _extracted(response: str) -> str:
    quoted = QUOTED.search(response)
    return quoted[1] if quoted else stated(response)


def _value(text: str, target: Target) -> str | None:
    """Normalize the text for the answer's type, as calculate_score.py does; None if it has another type."""
    kind = target.details["answer_type"]
    if kind == "list":
        found = LIST.findall(text)
        return re.sub(r"\s*,\s*", ", ", found[-1]) if found else None
    numbers = NUMBER.findall(GROUPED.sub("", text))
    if not numbers:
        return None
    number = float(numbers[-1])
    if kind == "integer":
        return str(int(number)) if abs(number) < float("inf") else None
    return str(round(number, int(float(target.details["precision"]))))


@lru_cache(maxsize=16_384)
def most_similar(text: str, options: tuple[str, ...]) -> str:
    """The letter of the first option with the smallest edit distance, as in the official get_most_similar."""
    distances = [edit_distance(text, option) for option in options]
    return LETTERS[distances.index(min(distances))]


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance, in characters."""
    row = list(range(len(second) + 1))
    for above, character in enumerate(first, start=1):
        diagonal, row[0] = row[0], above
        for place, other in enumerate(second, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (character != other))
    return row[-1]
