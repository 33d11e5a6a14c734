"""A conversation as the parts of a chat: what a published chat template reads."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from mantis.models.conversation import IMAGE_MARK, Conversation


def messages(conversation: Conversation, images: Sequence[Image.Image] = ()) -> list[dict[str, Any]]:
    """The turns, with a part for each stretch of text and for each mark; `images` may be left out."""
    found, waiting = [], iter(images)
    for turn in conversation.turns:
        first, *rest = turn.content.split(IMAGE_MARK)
        parts: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
        for text in rest:
            parts.append({"type": "image", "image": next(waiting, None)})
            parts += [{"type": "text", "text": text}] if text else []
        found.append({"role": turn.role, "content": parts})
    return found
