"""Checks a raw row against the rules of a conversation. The result has one image for each `<image>` mark.

Two repairs follow the official code (TIGER-AI-Lab/Mantis, mantis/train/data.py):
- If a conversation has fewer marks than images, the missing marks go to the front of its first turn.
- If the first turn is the assistant's, it is removed.

A row that breaks any other rule is rejected with a reason. Nothing is guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.data.sources.rejection import RowRejected, RowRepaired
from components.data.sources.rows.normal_row import ImageRef, RawTurn, Role, shown
from components.data.sources.rows.row_reader import AS_IT_IS, RowReader
from mantis.models.conversation import IMAGE_MARK, Turn

ORDER: tuple[Role, Role] = ("user", "assistant")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A conversation that passed every rule. `images` holds one image for each mark, in order.

    `system` is the text before the first turn; empty if there is none.
    """

    id: str
    system: str = ""
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]
    repairs: tuple[RowRepaired, ...] = ()

    @property
    def said(self) -> list[tuple[Role, str]]:
        """Role and content of everything in order, beginning with the system text."""
        turns: list[tuple[Role, str]] = [(turn.role, turn.content) for turn in self.turns]
        return [("system", self.system), *turns] if self.system else turns


class ConversationRules:
    """Checks the rows of one subset in order, and remembers their ids to find duplicates."""

    def __init__(self, *, max_images: int | None, max_turn_characters: int, reader: RowReader = AS_IT_IS) -> None:
        self._max_images, self._max_turn_characters = max_images, max_turn_characters
        self._reader = reader
        self._met: set[str] = set()

    def meet(self, row: int, raw: Any) -> str:
        """Remember the row's id and return it.

        Raises:
            RowRejected: the row has no usable id, or an earlier row has the same one, even if that row was rejected.
        """
        if not isinstance(raw, dict):
            raise RowRejected("row-malformed", value=type(raw).__name__, threshold="a mapping")
        name = self._reader.identify(row, raw)
        _require_text("id", name)
        if name in self._met:
            raise RowRejected("id-duplicate", value=name)
        self._met.add(name)
        return name

    def check(self, row: int, raw: Any) -> Checked:
        """Check and repair the conversation in `raw`. `row` is its number in the source, from 0.

        Raises:
            RowRejected: the row breaks a rule.
        """
        name = self.meet(row, raw)
        found = self._reader.read(raw)
        if self._max_images is not None and len(found.images) > self._max_images:
            raise RowRejected("images-too-many", value=len(found.images), threshold=str(self._max_images))
        system = found.turns[0].content if found.turns and found.turns[0].role == "system" else ""
        if system:
            _require_length("the system text", system, self._max_turn_characters)
            if IMAGE_MARK in system:
                raise RowRejected("marks-too-many", value="the system text has a mark", threshold="marks in turns")
        said = found.turns[1:] if system else found.turns
        turns, repairs = _turns(said, self._max_turn_characters)
        return _with_marks(Checked(id=name, system=system, turns=turns, images=found.images, repairs=repairs))


def _turns(said: Sequence[RawTurn], max_characters: int) -> tuple[tuple[Turn, ...], tuple[RowRepaired, ...]]:
    """Check the turns behind the system text."""
    skipped = 1 if said and said[0].role == "assistant" else 0
    turns = tuple(
        _turn(f"turn {number + 1}", turn, ORDER[(number - skipped) % 2], max_characters)
        for number, turn in enumerate(said)
        if number >= skipped
    )
    if len(turns) % 2 or not turns:
        raise RowRejected("answer-missing", value=f"the last of {len(said)} turns", threshold="an assistant's turn")
    if not skipped:
        return turns, ()
    value = shown({"role": "assistant", "content": said[0].content})
    return turns, (RowRepaired(reason="first-turn-skipped", value=value, threshold="a user's turn"),)


def _turn(where: str, turn: RawTurn, expected: Role, max_characters: int) -> Turn:
    if turn.role != expected or turn.role == "system":
        raise RowRejected("role-order", value=f"{where}: {turn.role}", threshold=expected)
    _require_length(where, turn.content, max_characters)
    if turn.role == "assistant" and not turn.content.replace(IMAGE_MARK, "").strip():
        raise RowRejected("answer-empty", value=where)
    return Turn(role=turn.role, content=turn.content)


def _require_length(where: str, content: str, max_characters: int) -> None:
    if len(content) > max_characters:
        raise RowRejected("text-too-long", value=f"{where}: {len(content)} characters", threshold=str(max_characters))
    _require_text(where, content)


def _with_marks(checked: Checked) -> Checked:
    marks = sum(turn.content.count(IMAGE_MARK) for turn in checked.turns)
    images = len(checked.images)
    if marks > images:
        raise RowRejected("marks-too-many", value=marks, threshold=f"{images} images")
    if marks == images:
        return checked
    first, *others = checked.turns
    marked = Turn(role=first.role, content=IMAGE_MARK * (images - marks) + first.content)
    repair = RowRepaired(reason="marks-missing", value=str(marks), threshold=f"{images} images")
    return replace(checked, turns=(marked, *others), repairs=(*checked.repairs, repair))


def _require_text(where: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowRejected("text-not-utf8", value=f"{where}, character {error.start + 1}") from None
