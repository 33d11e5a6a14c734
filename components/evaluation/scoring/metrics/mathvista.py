"""Scores MathVista by its own rules (lupantech/MathVista, evaluation/), but without GPT-4.

The official code works in two steps:
1. extract_answer.py keeps a response that is an option or a number, and the text in `The answer is "..."`. GPT-4
   extracts the answer from any other response.
2. calculate_score.py turns the extraction into an option (a letter in brackets, a letter, or the most similar text), an
   integer, or a number of `precision` decimals. Then it compares.

The following rules stand in for GPT-4. They read statements such as "the answer is", and the last one counts:
- A choice is the option that strict scoring finds, else the only "(X)", else VLMEvalKit's exact matching
  (`mmbench.inferred`). Else it is the only option in a short statement, or the option most similar to it.
- A number is the first one of the statement, behind its last "=". Without a statement it is the last number of the
  response. A number word counts as a number.
- A list is the last one in square brackets.
"""

import re

from components.evaluation.scoring.answer_extraction import single_bracket, stated, statements, strict_option
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, strict_choice
from components.evaluation.scoring.metrics.mmbench import inferred
from components.evaluation.scoring.response_text import CachedIfShort, plain
from components.evaluation.scoring.targets import LETTERS, Target

QUOTE = ('The answer is "', '".')  # as in the official pattern: what stands between them in one line
BRACKETED = re.compile(r"\(([a-zA-Z])\)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|-?\.\d+")
GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")
LIST = re.compile(r"\[[^\[\]]*\]")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DIGITS = {word: str(number) for number, word in enumerate(WORDS)}
WORD = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
LONGEST = 200  # characters; only a model could find the answer in a longer text


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
    if target.kind == "multiple-choice":
        return _choice(_option(response, target), target)
    said = _number(response, target)
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


def decided(response: str, target: Target) -> str | None:
    """The answer that the official code extracts by itself; None if it would ask GPT-4."""
    if target.kind == "multiple-choice" and response.strip() in target.options:
        return response.strip()
    try:
        if target.details.get("answer_type") == "integer":
            return str(int(response))
        if target.details.get("answer_type") == "float":
            return str(float(response))
    except ValueError:
        pass
    return _quoted(response)


def _option(response: str, target: Target) -> str | None:
    extracted = decided(response, target)
    if extracted is not None:
        return _normalized(extracted.strip(), target)
    named = strict_option(response, target.options) or single_bracket(response, target.letters)
    if named or (named := inferred(response, target)):
        return named
    short = stated(response)
    if not short or len(short) > LONGEST:
        return None
    contained = [letter for letter, text in zip(target.letters, target.options, strict=True) if _holds(short, text)]
    return contained[0] if len(contained) == 1 else _normalized(short, target)


def _holds(text: str, option: str) -> bool:
    """Whether the option occurs in the text as whole words."""
    return bool(option) and f" {option.lower().rstrip('.')} " in f" {re.sub(r'[.,;:!?]', ' ', text.lower())} "


def _normalized(extracted: str, target: Target) -> str:
    """The option of an extraction, as normalize_extracted_answer has it."""
    if extracted in target.options:
        return target.letters[target.options.index(extracted)]
    letter = BRACKETED.search(extracted)
    named = letter[1].upper() if letter else extracted
    return named if len(named) == 1 and named in target.letters else most_similar(named, target.options)


def _choice(letter: str | None, target: Target) -> MetricResult:
    """Compare the texts of two options, as the official code does: one question has its right text twice."""
    if letter is None:
        return NOTHING
    text = target.options[target.letters.index(letter)]
    same = any(target.options[target.letters.index(answer)] == text for answer in target.answers)
    return MetricResult(parsed=letter, score=float(same))


def _quoted(response: str) -> str | None:
    for line in response.split("\n"):
        begin = line.find(QUOTE[0])
        if begin >= 0:
            end = line.rfind(QUOTE[1])
            if end >= begin + len(QUOTE[0]):
                return line[begin + len(QUOTE[0]) : end]
    return None


def _number(response: str, target: Target) -> str | None:
    extracted = decided(response, target)
    if extracted is not None:
        return _value(extracted, target)
    text = plain(response)
    if target.details["answer_type"] == "list":
        return _value(text, target)
    for said in statements(text):
        line = said.split("\n", 1)[0]
        for part in (line.rpartition("=")[2], line):
            value = _value(part, target, last=False)
            if value is not None:
                return value
    return _value(text, target)


def _value(text: str, target: Target, *, last: bool = True) -> str | None:
    """Normalize the text for the answer's type, as calculate_score.py does; None if it has another type."""
    kind = target.details["answer_type"]
    if kind == "list":
        found = LIST.findall(text)
        return re.sub(r"\s*,\s*", ", ", found[-1]) if found else None
    numbers = NUMBER.findall(GROUPED.sub("", WORD.sub(lambda word: DIGITS[word[0].lower()], text)))
    if not numbers:
        return None
    number = float(numbers[-1 if last else 0])
    if kind == "integer":
        return str(int(number)) if abs(number) < float("inf") else None
    return str(round(number, int(float(target.details["precision"]))))


@CachedIfShort
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
