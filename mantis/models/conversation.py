"""A conversation with images, as every part understands it."""

from dataclasses import dataclass
from typing import Literal

IMAGE_MARK = "<image>"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message; each `<image>` in `content` is the place of the conversation's next image."""

    role: Literal["user", "assistant"]
    content: str


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
