"""Reads lists of turns: `role` or `from`, and text or content parts, as OpenAI, TRL, Qwen and ShareGPT write them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import NestedKeys, RawTurn, Role, is_there, shown
from components.data.sources.rows.row_images import BYTES_KEYS, PATH_KEYS
from mantis.models.conversation import IMAGE_MARK

ROLE_KEYS = ("from", "role")
CONTENT_KEYS = ("value", "content", "text")
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",  # OpenAI's newer name of it
}
IMAGE_PARTS = ("image", "image_url", "input_image")
TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True, kw_only=True)
class TurnNames:
    """The keys of a turn that hold its role and its content, in the order in which they are tried."""

    role: tuple[str, ...] = ROLE_KEYS
    content: tuple[str, ...] = CONTENT_KEYS


@dataclass(kw_only=True)
class TurnReader:
    """Reads the turns of one row. `inline` collects the images that stand in content parts; None is a bare mark.

    `nested` collects the keys of content parts that are not read. `unanswered` says whether the last question may have
    no answer.
    """

    names: TurnNames
    unanswered: bool = False
    inline: list[Any] = field(default_factory=list)
    nested: list[NestedKeys] = field(default_factory=list)

    def turns(self, messages: Any) -> tuple[RawTurn, ...]:
        """Read a list of turns.

        Raises:
            RowRejected: `messages` is no list of turns, or a turn has no known role or no text.
        """
        if not isinstance(messages, list) or not messages:
            raise RowRejected("conversation-missing", value=shown(messages), threshold="a list of turns")
        return tuple(self._turn(f"turn {number + 1}", message) for number, message in enumerate(messages))

    def has_role(self, message: Mapping[str, Any]) -> bool:
        """Whether a mapping is a turn, and not a content part."""
        return any(is_there(message.get(key)) for key in self.names.role)

    def turn_of(self, role: Role, content: Any) -> dict[str, Any]:
        """A turn as `turns` reads it.

        Raises:
            RowRejected: `content` is a list of several texts.
        """
        self._require_one(role, content)
        return {self.names.role[0]: role, self.names.content[0]: content}

    def content(self, where: str, value: Any) -> str:
        """Read text, or a list of content parts, as text with marks.

        Raises:
            RowRejected: the value is neither, or a part is neither text nor an image.
        """
        if isinstance(value, str):
            return value
        if not isinstance(value, list) or not value:
            raise RowRejected("turn-malformed", value=f"{where}: {shown(value)}", threshold="text or content parts")
        return "".join(self._part(f"{where}, part {number + 1}", part) for number, part in enumerate(value))

    def one_text(self, where: str, value: Any) -> str:
        """Read content that stands under a key of the row: a list of several texts there means several answers.

        Raises:
            RowRejected: as in `content`, or the value is a list of several texts.
        """
        self._require_one(where, value)
        return self.content(where, value)

    def _require_one(self, where: str, value: Any) -> None:
        if isinstance(value, list) and sum(isinstance(part, str) for part in value) > 1:
            raise RowRejected("turn-malformed", value=f"{where}: {shown(value)}", threshold="one text")

    def _turn(self, where: str, message: Any) -> RawTurn:
        if not isinstance(message, dict):
            raise RowRejected("turn-malformed", value=f"{where}: {shown(message)}", threshold="a mapping")
        found = _first(message, self.names.role)
        if not isinstance(found, str) or found not in ROLES:
            raise RowRejected("role-unknown", value=f"{where}: {found!r}", threshold=", ".join(ROLES))
        value = _first(message, self.names.content)
        return RawTurn(
            role=ROLES[found], content=self.content(where, value), unused=self._unused(message, found, value)
        )

    def _unused(self, message: Mapping[str, Any], role: str, content: Any) -> dict[str, Any]:
        """The values that are not read. A second name of the role or the content counts only if it says otherwise."""
        if len(message) == 2:
            return {}
        read = dict.fromkeys(self.names.content, content)
        read |= {key: message.get(key) for key in self.names.role if ROLES.get(str(message.get(key))) == ROLES[role]}
        return {
            key: value
            for key, value in message.items()
            if value is not None and not (key in read and read[key] == value)
        }

    def _part(self, where: str, part: Any) -> str:
        if isinstance(part, str):
            return part
        if not isinstance(part, dict):
            raise RowRejected("turn-malformed", value=f"{where}: {shown(part)}", threshold="a mapping")
        kind = part.get("type") or next(
            (key for key in ("text", "image", "image_url") if is_there(part.get(key))), None
        )
        if kind in TEXT_PARTS and isinstance(part.get("text"), str):
            self._leave(where, part, ("text",))
            return str(part["text"])
        if kind not in IMAGE_PARTS:
            raise RowRejected("part-unknown", value=f"{where}: {shown(kind)}", threshold="text, image, image_url")
        self._leave(where, part, (*PATH_KEYS, *BYTES_KEYS))
        image = {key: value for key in (*PATH_KEYS, *BYTES_KEYS) if is_there(value := part.get(key))}
        self.inline.append(_unwrapped(image) if image else None)
        return IMAGE_MARK

    def _leave(self, where: str, part: Mapping[str, Any], read: tuple[str, ...]) -> None:
        """Note the keys of a part beside `type` and those that are read."""
        unused = {key: value for key, value in part.items() if key != "type" and key not in read and is_there(value)}
        if unused:
            self.nested.append(NestedKeys(where=where, unused=unused))


def _unwrapped(image: dict[str, Any]) -> Any:
    """The only value of `{"image": value}`, whatever its key; a mapping of bytes and path stays."""
    if len(image) == 1 and not image.keys() & set(BYTES_KEYS):
        return next(iter(image.values()))
    return image


def _first(message: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first value that is not null: a union of sources has null under the keys of the other source."""
    there = [message[key] for key in keys if message.get(key) is not None]
    return next(filter(is_there, there), there[0] if there else None)
