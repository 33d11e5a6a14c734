"""Prompt profiles: how a conversation becomes text, and which part of the text is learned."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError, InputError
from components.models.conversation import IMAGE_MARK, Conversation

PROFILES = Path(__file__).with_name("prompts.yaml")


class Profile(BaseModel):
    """One entry of prompts.yaml, which explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    system_text: str
    user: str
    assistant_start: str
    end: str
    image: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a conversation's text that is learned as a whole (`target`) or not at all."""

    text: str
    target: bool


@lru_cache
def profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    profiles = yaml.safe_load(PROFILES.read_text())
    if name not in profiles:
        raise ConfigError(
            f"model.prompt = {name!r} is not a prompt profile.", remedy=f"Profiles: {', '.join(sorted(profiles))}."
        )
    return Profile.model_validate(profiles[name])


def render(conversation: Conversation, style: Profile) -> list[Piece]:
    """The conversation's text in pieces; `<image>` stands once for every image.

    Raises:
        InputError: the turns do not hold as many `<image>` marks as the conversation has images.
    """
    marks = sum(turn.content.count(IMAGE_MARK) for turn in conversation.turns)
    if marks != len(conversation.sizes):
        raise InputError(
            f"Conversation {conversation.id!r} has {len(conversation.sizes)} images and {marks} {IMAGE_MARK} marks.",
            remedy="Write one mark for each image.",
        )
    pieces = [Piece(text=style.start.replace("{system_text}", style.system_text), target=False)]
    seen = 0
    for turn in conversation.turns:
        content, seen = _number_images(turn.content, style.image, seen)
        if turn.role == "user":
            pieces.append(Piece(text=style.user.replace("{content}", content), target=False))
        else:
            pieces.append(Piece(text=style.assistant_start + content + style.end, target=True))
    return [piece for piece in pieces if piece.text]


def render_prompt(conversation: Conversation, style: Profile) -> list[Piece]:
    """As `render`, up to where the assistant's next answer begins."""
    start = [Piece(text=style.assistant_start, target=False)] if style.assistant_start else []
    return render(conversation, style) + start


def _number_images(content: str, image: str, seen: int) -> tuple[str, int]:
    first, *rest = content.split(IMAGE_MARK)
    numbered = [image.replace("{i}", str(seen + number)) + text for number, text in enumerate(rest, start=1)]
    return first + "".join(numbered), seen + len(rest)


def chat_template(style: Profile) -> str:
    """The profile as a Jinja chat template of transformers; a message's content is text with marks or a list of parts.

    The text that it gives still has one `<image>` per image: the processor expands it.
    """
    before, after = style.image.split(IMAGE_MARK)
    name, _, colon = before.partition("{i}")
    image = f"{{{{- {json.dumps(name)} ~ count.images ~ {json.dumps(colon + IMAGE_MARK + after)} -}}}}"
    count = "{%- set count.images = count.images + 1 -%}" + image
    user_start, user_end = style.user.split("{content}")
    start = style.start.replace("{system_text}", style.system_text)
    return (
        "{%- set count = namespace(images=0) -%}"
        f"{{{{- {json.dumps(start)} -}}}}"
        "{%- for message in messages -%}"
        f"{{{{- {json.dumps(user_start)} if message.role == 'user' else {json.dumps(style.assistant_start)} -}}}}"
        "{%- if message.content is string -%}"
        f"{{%- for text in message.content.split({json.dumps(IMAGE_MARK)}) -%}}"
        f"{{%- if not loop.first -%}}{count}{{%- endif -%}}{{{{- text -}}}}{{%- endfor -%}}"
        "{%- else -%}{%- for part in message.content -%}"
        f"{{%- if part.type == 'image' -%}}{count}{{%- else -%}}{{{{- part.text -}}}}{{%- endif -%}}"
        "{%- endfor -%}{%- endif -%}"
        f"{{{{- {json.dumps(user_end)} if message.role == 'user' else {json.dumps(style.end)} -}}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {json.dumps(style.assistant_start)} -}}}}{{%- endif -%}}"
    )
