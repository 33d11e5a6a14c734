"""Checks a row against the rules of a conversation. The result has one medium for each `<image>` or `<video>` mark.

These repairs follow the official code (TIGER-AI-Lab/Mantis, mantis/train/data.py, and the processors in mantis/models):
- If a conversation has fewer marks than media, the missing marks go to the front of its first turn.
- If it has more marks than media, the marks behind the last medium are removed.
- If the first turn is the assistant's, it is removed.
- If the last turn is the user's, nothing behind it is learned. The official code keeps it as a text without a target.
  Here it is left out with its media, which changes no loss: no target sees the text behind it.

A row that breaks any other rule is rejected with a reason. Nothing is guessed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from components.data.prepare.row_keys import require_nested_known, row_weight, turn_learned
from components.data.sources.rejection import RowRejected, RowRepaired
from components.data.sources.rows.normal_row import CONTROL, ImageRef, NormalRow, RawTurn
from mantis.models.conversation import IMAGE_MARK, Turn, learned_answers

# As in the official code. It becomes an `<image>` mark per frame. In a row without videos it is text like any other.
VIDEO_MARK = "<video>"
ORDER = ("user", "assistant")


@dataclass(frozen=True, kw_only=True)
class VideoRef:
    """A video of a row: its path in the source."""

    path: str


Medium = ImageRef | VideoRef
Media = Mapping[str, Sequence[Medium]]  # a row's media by their mark


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A conversation that passed every rule. `media` holds one image or video for each mark, in order.

    `system` is the text before the first turn; empty if there is none. The turns of a question end with the user's:
    `reference` is the answer that its row gives, if any.
    """

    id: str
    system: str = ""
    turns: tuple[Turn, ...]
    media: tuple[Medium, ...]
    weight: float = 1.0
    repairs: tuple[RowRepaired, ...] = ()
    reference: str = ""

    @property
    def said(self) -> list[tuple[str, str, bool]]:
        """Role, content and whether it is learned, of everything in order. It begins with the system text."""
        turns: list[tuple[str, str, bool]] = [(turn.role, turn.content, turn.learned) for turn in self.turns]
        return [("system", self.system, False), *turns] if self.system else turns


class ConversationRules:
    """Checks rows of any form. `ignore` names the keys of rows and turns that may hold anything."""

    def __init__(self, *, max_images: int | None, max_turn_characters: int, ignore: frozenset[str]) -> None:
        self._max_images, self._max_turn_characters = max_images, max_turn_characters
        self._ignore = ignore

    def check(self, name: str, row: NormalRow) -> Checked:
        """Check and repair the conversation of `row`, which is named `name`.

        Raises:
            RowRejected: the row breaks a rule.
        """
        weight = row_weight(row.unused, self._ignore)
        require_nested_known(row.nested, self._ignore)
        self.require_few(len(row.images))
        texts, controls = _without_controls(row.turns)
        system, said = self._opening(texts)
        turns, repairs = _without_first_answer([self._turn(number, turn) for number, turn in enumerate(said)])
        _require_order(turns)
        shown: dict[str, Sequence[Medium]] = {IMAGE_MARK: row.images}
        if row.videos:
            shown[VIDEO_MARK] = [VideoRef(path=path) for path in row.videos]
        marked, media, marks = _matched(turns, shown)
        kept, media, cut = _without_last_question(marked, media, shown)
        for number, turn in enumerate(kept):
            if turn.role == "assistant" and not _pattern(shown).sub("", turn.content).strip():
                raise RowRejected("answer-empty", value=f"turn {number + 1 + len(repairs)}")
        if not learned_answers(kept):
            raise RowRejected("nothing-to-learn", value="every answer has `loss: false`", threshold="one without it")
        return Checked(
            id=name,
            system=system,
            turns=kept,
            media=media,
            weight=weight,
            repairs=(*controls, *repairs, *marks, *cut),
        )

    def check_question(self, name: str, row: NormalRow) -> Checked:
        """Check a conversation whose next answer a model gives. The row's own last answer becomes the `reference`.

        Raises:
            RowRejected: the row breaks a rule, or holds no question.
        """
        require_nested_known(row.nested, self._ignore)
        self.require_few(len(row.images))
        texts, controls = _without_controls(row.turns)
        system, said = self._opening(texts)
        turns = [self._turn(number, turn) for number, turn in enumerate(said)]
        reference = turns.pop().content if turns and turns[-1].role == "assistant" else ""
        asked, repairs = _without_first_answer(turns)
        _require_turns(asked)
        if not asked:
            raise RowRejected("conversation-missing", value="no turn of the user", threshold="a question")
        shown: dict[str, Sequence[Medium]] = {IMAGE_MARK: row.images}
        if row.videos:
            shown[VIDEO_MARK] = [VideoRef(path=path) for path in row.videos]
        marked, media, marks = _matched(asked, shown)
        repaired = (*controls, *repairs, *marks)
        return Checked(id=name, system=system, turns=marked, media=media, repairs=repaired, reference=reference)

    def require_few(self, images: int) -> None:
        """Raise RowRejected if a row has more images, or frames of videos, than the subset allows."""
        if self._max_images is not None and images > self._max_images:
            raise RowRejected("images-too-many", value=images, threshold=str(self._max_images))

    def _opening(self, turns: Sequence[RawTurn]) -> tuple[str, Sequence[RawTurn]]:
        """The system text, and the turns behind it."""
        if not turns or turns[0].role != "system":
            return "", turns
        system = turns[0]
        where = "the system text"
        self._require_text(where, system.content)
        turn_learned(where, system.role, system.unused, self._ignore)
        if IMAGE_MARK in system.content:
            raise RowRejected("marks-in-system", value=system.content[:60], threshold="marks in turns")
        return system.content, turns[1:]

    def _turn(self, number: int, raw: RawTurn) -> Turn:
        where = f"turn {number + 1}"
        if raw.role == "system":
            raise RowRejected("role-order", value=f"{where}: system", threshold="a system text before all turns")
        self._require_text(where, raw.content)
        learned = turn_learned(where, raw.role, raw.unused, self._ignore)
        return Turn(role=raw.role, content=raw.content, learned=learned)

    def _require_text(self, where: str, text: str) -> None:
        if len(text) > self._max_turn_characters:
            value = f"{where}: {len(text)} characters"
            raise RowRejected("text-too-long", value=value, threshold=str(self._max_turn_characters))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RowRejected("text-not-utf8", value=f"{where}, character {error.start + 1}") from None


def with_frames(turns: Sequence[Turn], frames: Sequence[int]) -> tuple[Turn, ...]:
    """The turns with `<image>` marks for each `<video>` mark: as many as the `frames` of the video."""
    if not frames:
        return tuple(turns)
    left = iter(frames)

    def marks(_: re.Match[str]) -> str:
        return IMAGE_MARK * next(left)

    return tuple(replace(turn, content=re.sub(re.escape(VIDEO_MARK), marks, turn.content)) for turn in turns)


def _without_controls(turns: Sequence[RawTurn]) -> tuple[Sequence[RawTurn], tuple[RowRepaired, ...]]:
    """The turns without control characters, which no tokenizer was trained on."""
    found = [number for number, turn in enumerate(turns) if CONTROL.search(turn.content)]
    if not found:
        return turns, ()
    first = found[0]
    value = f"turn {first + 1}: {CONTROL.findall(turns[first].content)[0]!r}"
    repair = RowRepaired(reason="text-control", value=value, threshold="no control characters")
    return [replace(turn, content=CONTROL.sub("", turn.content)) for turn in turns], (repair,)


def _without_first_answer(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], tuple[RowRepaired, ...]]:
    if not turns or turns[0].role == "user":
        return tuple(turns), ()
    repair = RowRepaired(reason="first-turn-skipped", value=turns[0].content[:60], threshold="a user's turn")
    return tuple(turns[1:]), (repair,)


def _require_order(turns: Sequence[Turn]) -> None:
    """Raise RowRejected unless the user and the assistant take turns, and at least one question has an answer."""
    _require_turns(turns)
    if len(turns) < len(ORDER):
        raise RowRejected("answer-missing", value=f"{len(turns)} turns", threshold="a question and its answer")


def _require_turns(turns: Sequence[Turn]) -> None:
    """Raise RowRejected unless the user and the assistant take turns, and the user begins."""
    for number, turn in enumerate(turns):
        if turn.role != ORDER[number % 2]:
            raise RowRejected("role-order", value=f"turn {number + 1}: {turn.role}", threshold=ORDER[number % 2])


def _matched(turns: Sequence[Turn], shown: Media) -> tuple[tuple[Turn, ...], tuple[Medium, ...], list[RowRepaired]]:
    """One mark for each medium: missing marks go to the front, extra marks behind the last medium are removed."""
    repairs: list[RowRepaired] = []
    front = ""
    for mark, media in shown.items():
        marks, there = sum(turn.content.count(mark) for turn in turns), f"{len(media)} for {mark}"
        if marks and not any(shown.values()):
            raise RowRejected("marks-without-images", value=f"{marks} {mark}", threshold="no mark")
        if marks > len(media):
            turns = _first_marks(turns, mark, len(media))
            repairs.append(RowRepaired(reason="marks-extra", value=str(marks), threshold=there))
        elif marks < len(media):
            front += mark * (len(media) - marks)
            repairs.append(RowRepaired(reason="marks-missing", value=str(marks), threshold=there))
    turns = (replace(turns[0], content=front + turns[0].content), *turns[1:])
    left = {mark: iter(media) for mark, media in shown.items()}
    order = [mark for turn in turns for mark in _pattern(shown).findall(turn.content)]
    return turns, tuple(next(left[mark]) for mark in order), repairs


def _first_marks(turns: Sequence[Turn], mark: str, count: int) -> tuple[Turn, ...]:
    """The turns with the first `count` marks of a kind alone."""
    left = iter([mark] * count)
    return tuple(
        replace(turn, content=re.sub(re.escape(mark), lambda _: next(left, ""), turn.content)) for turn in turns
    )


def _without_last_question(
    turns: tuple[Turn, ...], media: tuple[Medium, ...], shown: Media
) -> tuple[tuple[Turn, ...], tuple[Medium, ...], list[RowRepaired]]:
    last = turns[-1]
    if last.role == "assistant":
        return turns, media, []
    marks = len(_pattern(shown).findall(last.content))
    repair = RowRepaired(reason="last-turn-skipped", value=last.content[:60], threshold="an assistant's turn")
    return turns[:-1], media[: len(media) - marks], [repair]


def _pattern(shown: Media) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, shown)))
