"""A conversation with images, as every part understands it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

IMAGE_MARK = "<image>"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message; each `<image>` in `content` is the place of the conversation's next image.

    `learned` says whether the loss counts an assistant's turn. It means nothing for a user's turn.
    """

    role: Literal["user", "assistant"]
    content: str
    learned: bool = True


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """Pixels of an image."""

    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns and the sizes of the images that their marks stand for, in order.

    Holds as many `<image>` marks as `sizes`; `data` sees to that before anything else meets a conversation. `system`
    replaces the system text of the chat template; empty keeps the template's own.
    """

    id: str
    system: str = ""
    turns: tuple[Turn, ...]
    sizes: tuple[ImageSize, ...]


def learned_answers(turns: Sequence[Turn]) -> list[int]:
    """The places of the turns that the loss counts."""
    return [place for place, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]


def learned_from(turns: Sequence[Turn], first: int) -> tuple[Turn, ...]:
    """The same turns, but the loss counts none before the place `first`."""
    return tuple(replace(turn, learned=turn.learned and place >= first) for place, turn in enumerate(turns))
