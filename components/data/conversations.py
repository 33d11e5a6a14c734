"""The rules of a conversation: from a raw row to turns whose image marks and images agree, or the reason why not.

The official code's rule (TIGER-AI-Lab/Mantis): where a conversation has fewer `<image>` marks than images, the missing
ones go to the front of its first turn. Everything else that does not fit is refused, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.data.refusal import Refusal, Repair
from components.models.conversation import IMAGE_MARK, Turn

Role = Literal["user", "assistant"]
ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
ORDER: tuple[Role, Role] = ("user", "assistant")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A conversation that keeps every rule; `images` are paths, one for each mark, in order."""

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    repairs: tuple[Repair, ...] = ()


class Rules:
    """Checks the rows of one subset in order; remembers the ids it has met."""

    def __init__(self, *, max_images: int | None) -> None:
        self._max_images = max_images
        self._met: set[str] = set()

    def check(self, row: int, raw: Any) -> Checked:
        """The conversation in `raw`, the source's row number `row`.

        Raises:
            Refusal: the row breaks a rule.
        """
        if not isinstance(raw, Mapping):
            raise Refusal("row-malformed", value=type(raw).__name__, threshold="a mapping")
        name = identify(row, raw)
        _require_text("id", name)
        if name in self._met:
            raise Refusal("id-duplicate", value=name)
        self._met.add(name)
        turns = _turns(raw)
        images = _images(raw)
        if self._max_images is not None and len(images) > self._max_images:
            raise Refusal("images-too-many", value=len(images), threshold=str(self._max_images))
        return _with_marks(Checked(id=name, turns=turns, images=images))


def identify(row: int, raw: Any) -> str:
    """The row's id, or `row-<number>` where it has none."""
    found = raw.get("id") if isinstance(raw, Mapping) else None
    return str(found) if isinstance(found, str | int) and found != "" else f"row-{row}"


def _turns(raw: Mapping[str, Any]) -> tuple[Turn, ...]:
    messages = raw.get("conversations", raw.get("conversation"))
    if not isinstance(messages, list) or not messages:
        raise Refusal("conversation-missing", value=_kind(messages), threshold="a list of turns")
    turns = tuple(_turn(number, message) for number, message in enumerate(messages))
    if len(turns) % 2:
        raise Refusal("answer-missing", value=f"the last of {len(turns)} turns", threshold="an assistant's turn")
    return turns


def _turn(number: int, message: Any) -> Turn:
    where = f"turn {number + 1}"
    if not isinstance(message, Mapping):
        raise Refusal("turn-malformed", value=f"{where}: {_kind(message)}", threshold="a mapping")
    role, content = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(role, str) or role not in ROLES:
        raise Refusal("role-unknown", value=f"{where}: {role!r}", threshold=", ".join(ROLES))
    if ROLES[role] != ORDER[number % 2]:
        raise Refusal("role-order", value=f"{where}: {role}", threshold=ORDER[number % 2])
    if not isinstance(content, str):
        raise Refusal("turn-malformed", value=f"{where}: {_kind(content)}", threshold="text")
    _require_text(where, content)
    if ROLES[role] == "assistant" and not content.replace(IMAGE_MARK, "").strip():
        raise Refusal("answer-empty", value=where)
    return Turn(role=ROLES[role], content=content)


def _images(raw: Mapping[str, Any]) -> tuple[str, ...]:
    images = raw.get("images")
    if images is None:
        return ()
    if not isinstance(images, list) or not all(isinstance(path, str) for path in images):
        raise Refusal("images-malformed", value=_kind(images), threshold="a list of paths")
    for path in images:
        _require_text("an image's path", path)
    return tuple(images)


def _with_marks(checked: Checked) -> Checked:
    marks = sum(turn.content.count(IMAGE_MARK) for turn in checked.turns)
    images = len(checked.images)
    if marks > images:
        raise Refusal("marks-too-many", value=marks, threshold=f"{images} images")
    if marks == images:
        return checked
    first, *others = checked.turns
    marked = Turn(role=first.role, content=IMAGE_MARK * (images - marks) + first.content)
    repair = Repair(reason="marks-missing", value=str(marks), threshold=f"{images} images")
    return Checked(id=checked.id, turns=(marked, *others), images=checked.images, repairs=(repair,))


def _require_text(where: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refusal("text-not-utf8", value=f"{where}, character {error.start + 1}") from None


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
