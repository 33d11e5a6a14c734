"""Scores MMMU and MuirBench as MMMU's own code does (MMMU-Benchmark/MMMU, mmmu/utils/eval_utils.py).

If nothing can be parsed, that code draws a random option. `official` takes such a response as wrong and unparsed.
`random_guess` gives it the expected value of the draw, 1 / the number of options. Published figures contain the draw.
"""

import re

from components.evaluation.scoring.answer_extraction import stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen, strict_choice
from components.evaluation.scoring.response_text import CachedIfShort
from components.evaluation.scoring.targets import CHOICES, Target

EDGES = ",.!?;:'"
WORDS_FOR_TEXT = 5  # a response of more words is searched for the options' texts
INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
SENTENCE = re.compile(r"\.\s(?=[A-Z])|\n")
# The official patterns. `(?<!\d)` only saves time: a match that fails at the first digit of a number fails at every
# other one, too.
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)

Value = float | str


def official(response: str, target: Target) -> MetricResult:
    """Score choices by `parse_choice`. An open question is right if any value of `parse_open` matches an answer."""
    if target.kind in CHOICES:
        return chosen(parse_choice(response, target), target)
    right = [value for answer in target.answers for value in normalize(answer)]
    readings = parse_open(response)
    return MetricResult(
        parsed=response.strip() or None,
        score=float(any(matches(reading, right) for reading in readings)),
    )


def random_guess(_: str, target: Target, read: MetricResult) -> MetricResult:
    """Score as `official` does, with the expected value of the random option that the official code draws."""
    guessed = target.kind in CHOICES and read.parsed is None and target.options
    return MetricResult(parsed=None, score=1 / len(target.options)) if guessed else read


def strict(response: str, target: Target) -> MetricResult:
    """Score choices by `strict_choice`. An open answer must equal the stated one; numbers round to two decimals."""
    if target.kind in CHOICES:
        return strict_choice(response, target)
    said = stated(response)
    if not said:
        return NOTHING
    right = {_plain(answer) for answer in target.answers}
    return MetricResult(parsed=said, score=float(_plain(said) in right))


def parse_choice(response: str, target: Target) -> str | None:
    """The letter in brackets, else a letter by itself, else that of an option's text. Of several, the last one wins."""
    said = response
    for edge in EDGES:  # one after the other, as in the official code: ".'" loses both, "'." only the full stop
        said = said.strip(edge)
    said = f" {said} "
    for before, behind in (("(", ")"), (" ", " ")):
        named = [letter for letter in target.letters if before + letter + behind in said]
        if len(named) > 1:
            return max(named, key=lambda letter: said.rfind(before + letter + behind))
        if named:
            return named[0]
    if len(said.split()) <= WORDS_FOR_TEXT:
        return None
    lowered = said.lower()
    texts = {letter: option.lower() for letter, option in zip(target.letters, target.options, strict=True)}
    named = [letter for letter, text in texts.items() if text in lowered]
    return max(named, key=lambda letter: lowered.rfind(texts[letter])) if named else None


def parse_open(response: str) -> set[Value]:
    """The values that an open answer may mean: tails of its sentences, and the numbers in them."""
    tails = _tails(response)
    found = tails + [number for tail in tails for pattern in NUMBERS for number in pattern.findall(tail)]
    return {value for text in found for value in normalize(text)}


@CachedIfShort
def normalize(text: str) -> tuple[Value, ...]:
    """A number rounded to two decimals, else the text in lower case.

    A text of one character gives two values with a space before or after, so that it matches no part of a word.
    """
    text = text.strip()
    number = _number(text)
    if number is not None:
        return (number,)
    text = text.lower()
    return (f" {text}", f"{text} ") if len(text) == 1 else (text,)


def matches(reading: Value, right: list[Value]) -> bool:
    """Whether a value of `parse_open` is right: an equal number, or a text that holds a right text."""
    if isinstance(reading, str):
        return any(isinstance(value, str) and value in reading for value in right)
    return reading in right


def _tails(response: str) -> list[str]:
    """The shortest text after an indicator, for each sentence; the whole response if no sentence has one."""
    whole = response.strip().strip(".").lower()
    sentences = SENTENCE.split(whole)
    tails = []
    for place, sentence in enumerate(sentences):
        indicators = (*INDICATORS, "=") if place == len(sentences) - 1 else INDICATORS
        shortest = ""
        for word in indicators:
            if word in sentence:
                behind = sentence.rpartition(word)[2].strip()
                # As in the official code, an empty text counts as the shortest one, and the next text replaces it.
                shortest = behind if not shortest or len(behind) < len(shortest) else shortest
        if shortest and shortest not in ":,.!?;'":
            tails.append(shortest)
    return tails or [whole]


def _plain(text: str) -> Value:
    number = _number(text.strip())
    return text.strip().casefold() if number is None else number


def _number(text: str) -> float | None:
    try:
        return round(float(text.replace(",", "")), 2)
    except ValueError:
        return None
