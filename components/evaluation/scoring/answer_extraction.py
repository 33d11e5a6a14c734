"""How an answer is found in a response; what several metrics share."""

import re
from collections.abc import Sequence
from functools import lru_cache

from components.evaluation.scoring.targets import LETTERS

LEADS = ("final answer:", "the answer is", "answer:")
# An option's letter that stands alone, perhaps in brackets: "B", "(b)", "B.", "B: two cats", "b) two cats".
LETTER = re.compile(r"^\(?([A-Za-z])(?:\)|[.:](?=\s|$)|$)")
# A further letter that is named behind it; A and I alone are words.
FURTHER = re.compile(r"\(([A-Za-z])\)|\b([B-HJ-Z])\b")


def after_lead(response: str, *, last: bool) -> str:
    """What follows the first (or `last`) of the first kind of LEADS that occurs; all of it where none does."""
    lowered = response.lower()
    for lead in LEADS:
        place = lowered.rfind(lead) if last else lowered.find(lead)
        if place >= 0:
            return response[place + len(lead) :]
    return response


def stated(response: str) -> str:
    """The answer that is stated last, without the full stop or the line's rest behind it."""
    said = after_lead(response, last=True).strip()
    return said.split("\n", 1)[0].strip().removesuffix(".").strip()


def strict_option(response: str, options: Sequence[str]) -> str | None:
    """A letter that stands alone at the start of the stated answer, else the option it spells out; None if unclear."""
    said = after_lead(response, last=True).strip()
    found = LETTER.match(said)
    if found is None:
        text = said.removesuffix(".").strip().casefold()
        return letter_of(text, tuple(option.strip().casefold() for option in options))
    letter = found[1].upper()
    further = {(bracketed or bare).upper() for bracketed, bare in FURTHER.findall(said, found.end())}
    known = set(LETTERS[: len(options)])
    return letter if letter in known and not (further & known) - {letter} else None


@lru_cache(maxsize=65_536)
def letter_of(text: str, options: tuple[str, ...]) -> str | None:
    """The letter of the one option that is `text`; None where none or several are."""
    same = [place for place, option in enumerate(options) if option == text]
    return LETTERS[same[0]] if len(same) == 1 else None
