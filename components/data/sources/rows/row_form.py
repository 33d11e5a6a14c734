"""What a form of rows is: how the keys of a row map to turns and images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.data.sources.rows.normal_row import RawTurn
from components.data.sources.rows.turn_lists import TurnReader

ReadTurns = Callable[[Mapping[str, Any], TurnReader], tuple[RawTurn, ...]]


@dataclass(frozen=True, kw_only=True)
class RowForm:
    """One form of rows. Its module says how the turns are read.

    Args:
        name: the name in messages, in `data.format` and in docs/how-to/bring-your-data.md.
        marks: a row has this form if it has a value under one of these keys.
        uses: every key that decides the turns, beside `marks`.
        same: keys that name one value, so that a second one must not say otherwise.
        question: the key of the question, if `marks` are those of the answer: a row without an answer has it alone.
        turns: reads the turns of a row.
        images_first: a text without marks has all images before its first turn, by definition of the form.
    """

    name: str
    marks: tuple[str, ...]
    turns: ReadTurns
    uses: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    question: str = ""
    images_first: bool = False
