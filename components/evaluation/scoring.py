"""What a response says, and whether that is right. Two profiles: `official` and `strict`.

`official` follows TIGER-AI-Lab/Mantis, mantis/benchmark/eval.py: of what follows "final answer:" ("the answer is",
"answer:"), the first letter at all is the option, so "Both images..." is B. `strict` wants the option itself, once,
and where an answer is stated twice the last one counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

AnswerType = Literal["short", "multiple-choice"]
Scoring = Literal["official", "strict"]

LEADS = ("final answer:", "the answer is", "answer:")
# An option's letter that stands alone, perhaps in brackets: "B", "(b)", "B.", "B: two cats", "b) two cats".
LETTER = re.compile(r"^\(?([A-Za-z])(?:\)|[.:](?=\s|$)|$)")
# A further letter that is named behind it; A and I alone are words.
FURTHER = re.compile(r"\(([A-Za-z])\)|\b([B-HJ-Z])\b")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was understood (None: nothing) and whether it is right."""

    understood: str | None
    correct: bool


def score(response: str, *, answer: str, options: Sequence[str], answer_type: AnswerType, scoring: Scoring) -> Verdict:
    """Judge a response. `answer` is the option's letter in multiple choice, else the text itself."""
    if answer_type == "multiple-choice":
        parse = official_option if scoring == "official" else strict_option
        letter = parse(response, options)
        return Verdict(understood=letter, correct=letter == answer.upper())
    stated = after_lead(response, last=scoring == "strict").strip()
    if scoring == "strict":
        stated = stated.removesuffix(".").strip()
        if options and stated.casefold() not in [option.casefold() for option in options]:
            return Verdict(understood=None, correct=False)
    return Verdict(understood=stated or None, correct=stated.casefold() == answer.strip().casefold())


def official_option(response: str, options: Sequence[str]) -> str | None:
    """The first letter of the stated answer where it is one of the options' letters, else the option it spells out."""
    stated = after_lead(response, last=False)
    first = next((character.upper() for character in stated if character.isalpha()), None)
    if first is not None and ord(first) - ord("A") in range(len(options)):
        return first
    return _letter_of(stated.strip(), [option.strip() for option in options])


def strict_option(response: str, options: Sequence[str]) -> str | None:
    """A letter that stands alone at the start of the stated answer, else the option it spells out; None if unclear."""
    stated = after_lead(response, last=True).strip()
    found = LETTER.match(stated)
    if found is None:
        text = stated.removesuffix(".").strip().casefold()
        return _letter_of(text, [option.strip().casefold() for option in options])
    letter = found[1].upper()
    further = {(bracketed or bare).upper() for bracketed, bare in FURTHER.findall(stated, found.end())}
    known = {chr(ord("A") + place) for place in range(len(options))}
    return letter if letter in known and not (further & known) - {letter} else None


def after_lead(response: str, *, last: bool) -> str:
    """What follows the first (or `last`) of the first kind of LEADS that occurs; all of it where none does."""
    lowered = response.lower()
    for lead in LEADS:
        place = lowered.rfind(lead) if last else lowered.find(lead)
        if place >= 0:
            return response[place + len(lead) :]
    return response


def _letter_of(text: str, options: Sequence[str]) -> str | None:
    same = [place for place, option in enumerate(options) if option == text]
    return chr(ord("A") + same[0]) if len(same) == 1 else None
