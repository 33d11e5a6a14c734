"""Checks a raw row against the rules of a conversation. The result has one image for each `<image>` mark.

Two repairs follow the official code (TIGER-AI-Lab/Mantis, mantis/train/data.py):
- If a conversation has fewer marks than images, the missing marks go to the front of its first turn.
- If the first turn is the assistant's, it is removed.

A row that breaks any other rule is rejected with a reason. Nothing is guessed.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from components.data.sources.rejection import RowRejected, RowRepaired
from mantis.models.conversation import IMAGE_MARK, Turn

Role = Literal["user", "assistant"]
ROLES: dict[str, Role] = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
ORDER: tuple[Role, Role] = ("user", "assistant")


@dataclass(frozen=True, kw_only=True)
class ImageRef:
    """An image of a row: its path in the source or, if the row embeds it, its bytes and a name for them."""

    path: str
    data: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A conversation that passed every rule. `images` holds one image for each mark, in order."""

    id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]
    repairs: tuple[RowRepaired, ...] = ()


class ConversationRules:
    """Checks the rows of one subset in order, and remembers their ids to find duplicates."""

    def __init__(self, *, max_images: int | None, max_turn_characters: int) -> None:
        self._max_images, self._max_turn_characters = max_images, max_turn_characters
        self._met: set[str] = set()

    def meet(self, row: int, raw: Any) -> str:
        """Remember the row's id and return it.

        Raises:
            RowRejected: the row has no usable id, or an earlier row has the same one, even if that row was rejected.
        """
        if not isinstance(raw, dict):
            raise RowRejected("row-malformed", value=type(raw).__name__, threshold="a mapping")
        name = identify(row, raw)
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
        turns, repairs = _turns(raw, self._max_turn_characters)
        images = _images(raw)
        if self._max_images is not None and len(images) > self._max_images:
            raise RowRejected("images-too-many", value=len(images), threshold=str(self._max_images))
        return _with_marks(Checked(id=name, turns=turns, images=images, repairs=repairs))


def identify(row: int, raw: Any) -> str:
    """The row's id, or `row-<number>` if it has none."""
    found = raw.get("id") if isinstance(raw, dict) else None
    return str(found) if isinstance(found, str | int) and found != "" else f"row-{row}"


def _turns(raw: dict[str, Any], max_characters: int) -> tuple[tuple[Turn, ...], tuple[RowRepaired, ...]]:
    messages = raw.get("conversations", raw.get("conversation"))
    if not isinstance(messages, list) or not messages:
        raise RowRejected("conversation-missing", value=_kind(messages), threshold="a list of turns")
    skipped = 1 if _role(messages[0]) == "assistant" else 0
    turns = tuple(
        _turn(f"turn {number + 1}", message, ORDER[(number - skipped) % 2], max_characters)
        for number, message in enumerate(messages)
        if number >= skipped
    )
    if len(turns) % 2 or not turns:
        raise RowRejected("answer-missing", value=f"the last of {len(messages)} turns", threshold="an assistant's turn")
    if not skipped:
        return turns, ()
    return turns, (RowRepaired(reason="first-turn-skipped", value=_kind(messages[0]), threshold="a user's turn"),)


def _turn(where: str, message: Any, expected: Role, max_characters: int) -> Turn:
    role = _role(message)
    if not isinstance(message, dict):
        raise RowRejected("turn-malformed", value=f"{where}: {_kind(message)}", threshold="a mapping")
    if role is None:
        found = message.get("from", message.get("role"))
        raise RowRejected("role-unknown", value=f"{where}: {found!r}", threshold=", ".join(ROLES))
    if role != expected:
        raise RowRejected("role-order", value=f"{where}: {role}", threshold=expected)
    content = message.get("value", message.get("content"))
    if not isinstance(content, str):
        raise RowRejected("turn-malformed", value=f"{where}: {_kind(content)}", threshold="text")
    if len(content) > max_characters:
        raise RowRejected("text-too-long", value=f"{where}: {len(content)} characters", threshold=str(max_characters))
    _require_text(where, content)
    if role == "assistant" and not content.replace(IMAGE_MARK, "").strip():
        raise RowRejected("answer-empty", value=where)
    return Turn(role=role, content=content)


def _role(message: Any) -> Role | None:
    found = message.get("from", message.get("role")) if isinstance(message, dict) else None
    return ROLES.get(found) if isinstance(found, str) else None


def _images(raw: dict[str, Any]) -> tuple[ImageRef, ...]:
    images = raw.get("images")
    if images is None:  # rows of LLaVA-Pretrain hold one image in `image`
        images = [raw["image"]] if raw.get("image") is not None else []
    if not isinstance(images, list):
        raise RowRejected("images-malformed", value=_kind(images), threshold="a list of images")
    return tuple(_image(number, image) for number, image in enumerate(images))


def _image(number: int, image: Any) -> ImageRef:
    """Parse an entry of `images`: a path, or a mapping with `bytes`, `path` or both."""
    fields = image if isinstance(image, dict) else {"path": image}
    path, data = fields.get("path"), fields.get("bytes")
    if path is None and isinstance(data, bytes):
        path = f"#{number + 1}"
    if not isinstance(path, str) or not (data is None or isinstance(data, bytes)):
        raise RowRejected("images-malformed", value=f"image {number + 1}: {_kind(image)}", threshold="a path or bytes")
    _require_text("an image's path", path)
    return ImageRef(path=path, data=data)


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


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
