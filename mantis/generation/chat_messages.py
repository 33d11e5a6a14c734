"""Writes a question as a message of a chat: for chat templates of transformers, and for OpenAI's API."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

from mantis.generation.answerer import Question
from mantis.generation.decoding import END_OF_TEXT, Decoding
from mantis.generation.sample_images import Picture
from mantis.images.formats import open_image
from mantis.models.conversation import IMAGE_MARK

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif"}  # what OpenAI's API accepts


def messages_of(question: Question) -> list[tuple[str, list[str | Picture]]]:
    """Split a conversation into messages: the role, and the texts and images in order. Empty texts are left out."""
    pictures = iter(question.pictures)
    messages: list[tuple[str, list[str | Picture]]] = []
    if question.system:
        messages.append(("system", [question.system]))
    for turn in question.turns:
        parts: list[str | Picture] = []
        for number, text in enumerate(turn.content.split(IMAGE_MARK)):
            if number:
                parts.append(next(pictures))
            if text:
                parts.append(text)
        messages.append((turn.role, parts))
    return messages


def openai_request(
    question: Question,
    decoding: Decoding,
    *,
    model: str,
    link: Callable[[Picture], str],
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the body of a request to /chat/completions, with greedy decoding.

    `link` gives the URL of an image. `fields` replace fields of the body; a field that is None is removed.
    """
    messages = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image_url", "image_url": {"url": link(part)}}
                for part in parts
            ],
        }
        for role, parts in messages_of(question)
    ]
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": decoding.max_new_tokens,
        "temperature": 0,
        # A server ends a response at the end of a text by itself. It knows other ends as text alone.
        "stop": [stop for stop in decoding.stop if stop != END_OF_TEXT] or None,
    } | dict(fields or {})
    return {name: value for name, value in body.items() if value is not None}


def encoded_picture(picture: Picture) -> tuple[bytes, str]:
    """The image's bytes and their file suffix. An image in a format that OpenAI's API does not accept becomes a PNG."""
    data = picture.load()
    with open_image(data) as image:
        suffix = SUFFIXES.get(image.format or "")
        if suffix is not None:
            return data, suffix
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue(), SUFFIXES["PNG"]


def data_uri(picture: Picture) -> str:
    """The image as a data URI."""
    data, suffix = encoded_picture(picture)
    kind = "jpeg" if suffix == SUFFIXES["JPEG"] else suffix[1:]
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
