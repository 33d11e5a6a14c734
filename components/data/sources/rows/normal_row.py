"""The row that every form of rows becomes, before any rule of a conversation is checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]

NOTHING: tuple[Any, ...] = (None, "", b"", [], {})

# C0, DEL and C1 without tab and line ends. They move the cursor of a terminal, and no tokenizer was trained on them.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
CONTROL_OR_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # an id or a path is one line of a list
LONGEST_NAME = 1024  # bytes of an id or a path; the limit of S3 for keys


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """An image of a row: its path in the source or, if the row embeds it, its bytes and a name for them."""

    path: str
    data: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RawTurn:
    """A turn as text with one `<image>` mark for each image. `unused` holds the values that the form does not read."""

    role: Role
    content: str
    unused: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class NestedKeys:
    """The values that no form reads of a content part, an image or a video.

    `where` names the mapping, e.g. `image 2`.
    """

    where: str
    unused: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalRow:
    """A row of any form. Roles are known and contents are text; their order and number are not checked.

    Args:
        form: name of the row form.
        turns: the turns in order; a system text is the first turn.
        images: the images in order.
        videos: the paths of the videos in order.
        unused: the keys of the row that the form does not read, with values that are not null.
        nested: the keys that the form does not read of mappings inside the row, turns apart.
    """

    form: str
    turns: tuple[RawTurn, ...]
    images: tuple[ImageRef, ...]
    unused: Mapping[str, Any]
    videos: tuple[str, ...] = ()
    nested: tuple[NestedKeys, ...] = ()


def shown(value: Any) -> str:
    """A value of a row for a message: its type and its first characters."""
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"


def is_there(value: Any) -> bool:
    """Whether a key has a value. null and empty values are none, since a union of sources has them."""
    return bool(value) or value not in NOTHING
