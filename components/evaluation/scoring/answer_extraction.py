"""Finds the answer in a response. Several metrics share these functions."""

import re
from collections.abc import Sequence
from functools import lru_cache

from components.evaluation.scoring.targets import LETTERS

LEADS = ("final answer:", "the answer is", "answer:")
# An option's letter by itself, with or without brackets: "B", "(b)", "B.", "B: two cats", "b) two cats".
LETTER = re.compile(r"^\(?([A-Za-z])(?:\)|[.:](?=\s|$)|$)")
# A further letter after it. A and I need brackets, since without them they are words.
FURTHER = re.compile(r"\(([A-Za-z])\)|\b([B-HJ-Z])\b")


def after_lead(response: str, *, last: bool) -> str:
    """The text after a lead such as "answer:", or the whole response if it has none.

    The first entry of LEADS that occurs counts, at its first occurrence or, with `last`, at its last one.
    """
    lowered = response.lower()
    for lead in LEADS:
        place = lowered.rfind(lead) if last else lowered.find(lead)
        if place >= 0:
            return response[place + len(lead) :]
    return response


def stated(response: str) -> str:
    """The last answer that the response states: one line, without its full stop."""
    said = after_lead(response, last=True).strip()
    return said.split("\n", 1)[0].strip().removesuffix(".").strip()


def strict_option(response: str, options: Sequence[str]) -> str | None:
    """The letter of the stated option; None if the answer is unclear.

    The stated answer must begin with a letter by itself, or be an option's text. It is unclear if it names another
    option's letter too.
    """
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
    """The letter of the option that equals `text`; None if no option or several do."""
    same = [place for place, option in enumerate(options) if option == text]
    return LETTERS[same[0]] if len(same) == 1 else None
