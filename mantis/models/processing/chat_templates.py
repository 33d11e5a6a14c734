"""Chat templates: how a conversation becomes text, and which part of the text is learned."""

import json
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mantis.config.bounded_yaml import parse_yaml
from mantis.errors import ConfigError, InputError, did_you_mean
from mantis.models.conversation import IMAGE_MARK, Conversation
from mantis.models.registry import family_files

SYSTEM_TEXT = "{system_text}"  # its place in `start`
FILE = "chat_templates.yaml"  # beside this module, and in families' folders


class ChatTemplate(BaseModel):
    """One entry of chat_templates.yaml, which explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str = ""
    start: str
    system_text: str
    user: str
    user_image: str = ""
    assistant_header: str = ""
    assistant_start: str
    end: str
    after: str = ""
    image: str
    once: str = ""
    captions: bool = False
    prompt_end: str | None = None
    stop: str | None = None
    separated: bool = True

    def identity(self) -> dict[str, Any]:
        """What a mixture's identity holds of it: all fields, but the newer ones only where they are set."""
        return self.model_dump(exclude={name for name in ("assistant_header", "user_image") if not getattr(self, name)})

    @property
    def takes_system(self) -> bool:
        """Whether a conversation's own system text has a place."""
        return SYSTEM_TEXT in self.start

    def opening(self, system: str = "") -> str:
        """The text before the first turn. `system` stands in the place of `system_text`, where there is one.

        It is empty if it would hold neither.
        """
        text = system or self.system_text
        return self.start.replace(SYSTEM_TEXT, text) if text or not self.takes_system else ""

    @property
    def prompt_tail(self) -> str:
        """What stands behind the last question of a prompt."""
        return self.assistant_header + self.assistant_start if self.prompt_end is None else self.prompt_end

    @property
    def user_end(self) -> str:
        """What ends a user's turn."""
        return self.user.partition("{content}")[2]


@dataclass(frozen=True, kw_only=True)
class TextSpan:
    """A stretch of a conversation's text. It lies within an assistant's turn (`answer`) or outside of all of them.

    It is learned as a whole (`target`) or not at all. Only an answer can be a target.
    """

    text: str
    answer: bool
    target: bool


@lru_cache
def load_chat_template(name: str) -> ChatTemplate:
    """The chat template of this name.

    Raises:
        ConfigError: there is none; names those that exist.
    """
    templates = _templates()
    if name not in templates:
        raise ConfigError(
            f"model.prompt = {name!r} is not a chat template.",
            remedy=f"{did_you_mean(name, templates)}Templates: {', '.join(sorted(templates))}.",
        )
    return ChatTemplate.model_validate(templates[name])


@cache
def _templates() -> dict[str, Any]:
    """The fields of all chat templates by name: the shared ones and those of every family.

    Raises:
        ConfigError: two files define templates of the same name.
    """
    found: dict[str, Any] = parse_yaml(Path(__file__).with_name(FILE).read_text())
    for file in family_files(FILE):
        templates: dict[str, Any] = parse_yaml(file.read_text())
        if twice := found.keys() & templates.keys():
            raise ConfigError(f"{file} defines {min(twice)!r}, which exists already.", remedy="Rename the template.")
        found |= templates
    return found


def render(conversation: Conversation, style: ChatTemplate, *, mark: str = IMAGE_MARK) -> list[TextSpan]:
    """The conversation's text in pieces, answers and other text in turn; `mark` stands once for every image.

    A template with `captions` leaves out what a question says beside its images, and its whole text is learned.

    Raises:
        InputError: the turns do not hold as many `<image>` marks as the conversation has images.
    """
    return _render(conversation, style, mark, captions=style.captions)


def _render(conversation: Conversation, style: ChatTemplate, mark: str, *, captions: bool) -> list[TextSpan]:
    marks = sum(turn.content.count(IMAGE_MARK) for turn in conversation.turns)
    if marks != len(conversation.sizes):
        raise InputError(
            f"Conversation {conversation.id!r} has {len(conversation.sizes)} images and {marks} {IMAGE_MARK} marks.",
            remedy="Write one mark for each image.",
        )
    pieces = [TextSpan(text=style.opening(conversation.system), answer=False, target=False)]
    seen = 0
    for turn in conversation.turns:
        shown = _marks(turn.content) if captions and turn.role == "user" else turn.content
        content, seen = _number_images(shown, style, mark, seen)
        if turn.role == "user":
            user = style.user_image if style.user_image and shown.startswith(IMAGE_MARK) else style.user
            pieces.append(TextSpan(text=user.replace("{content}", content), answer=captions, target=captions))
        else:
            text = style.assistant_start + content + style.end
            pieces.append(TextSpan(text=style.assistant_header, answer=False, target=False))
            pieces.append(TextSpan(text=text, answer=True, target=turn.learned))
            pieces.append(TextSpan(text=style.after, answer=False, target=False))
    return _joined(pieces)


def render_prompt(conversation: Conversation, style: ChatTemplate, *, mark: str = IMAGE_MARK) -> list[TextSpan]:
    """As `render`, up to where the assistant's next answer begins."""
    pieces = _render(conversation, style, mark, captions=False)
    return _joined([*pieces, TextSpan(text=style.prompt_tail, answer=False, target=False)])


def _marks(content: str) -> str:
    """The image marks of a message, without its words."""
    return IMAGE_MARK * content.count(IMAGE_MARK)


def _joined(pieces: list[TextSpan]) -> list[TextSpan]:
    """Neighbours of one kind, answers or other text, as one: a token may cross from one to the other."""
    joined: list[TextSpan] = []
    for piece in pieces:
        if joined and (joined[-1].answer, joined[-1].target) == (piece.answer, piece.target):
            joined[-1] = replace(piece, text=joined[-1].text + piece.text)
        elif piece.text:
            joined.append(piece)
    return joined


def _number_images(content: str, style: ChatTemplate, mark: str, seen: int) -> tuple[str, int]:
    if IMAGE_MARK not in content:
        return content, seen
    first, *rest = content.split(IMAGE_MARK)
    image = style.image.replace(IMAGE_MARK, mark)
    numbered = [
        image.replace("{i}", str(number + 1)).replace("{j}", str(number)) + text
        for number, text in enumerate(rest, start=seen)
    ]
    text = first + "".join(numbered)
    if style.once:
        text = text.replace(2 * style.once, style.once)
    return text, seen + len(rest)


def jinja_template(style: ChatTemplate, *, mark: str = IMAGE_MARK) -> str:
    """The template in Jinja, as transformers takes it; a message's content is text with `<image>` or a list of parts.

    It gives the text of `render_prompt`, with one `mark` per image: the processor expands it. A first message of the
    role `system` or `developer` is the system text. As in `render`, a template without a place for it leaves it out. A
    later one and any other role are errors.
    """
    before, *after = (style.first + style.start).split(SYSTEM_TEXT)
    opening = json.dumps(before) + "".join(f" ~ system.text ~ {json.dumps(text)}" for text in after)
    if style.takes_system and not style.system_text:
        opening = f"({opening} if system.text else {json.dumps(style.first)})"
    answer_start = style.assistant_header + style.assistant_start
    user_start, user_end = style.user.split("{content}")
    begin = json.dumps(user_start)
    if style.user_image:
        begin = f"({json.dumps(style.user_image.partition('{content}')[0])} if {_IMAGE_FIRST} else {begin})"
    return (
        "{%- set count = namespace(images=0) -%}"
        f"{{%- set system = namespace(text={json.dumps(style.system_text)}) -%}}"
        f"{_jinja_system()}"
        f"{{{{- {opening} -}}}}"
        "{%- for message in messages -%}"
        "{%- if message.role in ['user', 'assistant'] -%}"
        f"{{{{- {begin} if message.role == 'user' else {json.dumps(answer_start)} -}}}}"
        f"{_jinja_content(style, mark)}"
        f"{{{{- {json.dumps(user_end)} if message.role == 'user' else {json.dumps(style.end + style.after)} -}}}}"
        "{%- elif not (loop.first and message.role in ['system', 'developer']) -%}"
        "{{- raise_exception('Message ' ~ loop.index ~ ' has the role ' ~ message.role"
        " ~ '. Allowed: user and assistant, and one system message before them.') -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {json.dumps(style.prompt_tail)} -}}}}{{%- endif -%}}"
    )


# Jinja: whether the content of `message` begins with an image. An empty text before it does not count.
_IMAGE_FIRST = (
    f"(message.content is string and message.content.startswith({json.dumps(IMAGE_MARK)})) or (message.content is not"
    " string and (message.content | rejectattr('text', 'equalto', '') | first | default({})).type == 'image')"
)


def _jinja_system() -> str:
    """Jinja that takes the system text from the first message, if that has one. It may hold no image."""
    return (
        "{%- if messages and messages[0].role in ['system', 'developer'] -%}"
        "{%- set given -%}"
        "{%- if messages[0].content is string -%}{{- messages[0].content -}}"
        "{%- else -%}{%- for part in messages[0].content -%}"
        f"{{{{- {json.dumps(IMAGE_MARK)} if part.type == 'image' else part.text -}}}}"
        "{%- endfor -%}{%- endif -%}"
        "{%- endset -%}"
        f"{{%- if {json.dumps(IMAGE_MARK)} in given -%}}"
        "{{- raise_exception('The system message holds an image.') -}}{%- endif -%}"
        "{%- if given -%}{%- set system.text = given -%}{%- endif -%}"
        "{%- endif -%}"
    )


def _jinja_content(style: ChatTemplate, mark: str) -> str:
    """Jinja that writes the content of `message`, with the name of each image."""
    before, after = style.image.split(IMAGE_MARK)
    name, number, colon = before.partition("{j}" if "{j}" in before else "{i}")
    shown = {"{i}": "count.images", "{j}": "(count.images - 1)", "": '""'}[number]
    image = f"{{{{- {json.dumps(name)} ~ {shown} ~ {json.dumps(colon + mark + after)} -}}}}"
    counted = "{%- set count.images = count.images + 1 -%}" + image
    content = (
        "{%- if message.content is string -%}"
        f"{{%- for text in message.content.split({json.dumps(IMAGE_MARK)}) -%}}"
        f"{{%- if not loop.first -%}}{counted}{{%- endif -%}}{{{{- text -}}}}{{%- endfor -%}}"
        "{%- else -%}{%- for part in message.content -%}"
        f"{{%- if part.type == 'image' -%}}{counted}{{%- else -%}}{{{{- part.text -}}}}{{%- endif -%}}"
        "{%- endfor -%}{%- endif -%}"
    )
    if not style.once:
        return content
    twice, once = json.dumps(2 * style.once), json.dumps(style.once)
    return f"{{%- set content -%}}{content}{{%- endset -%}}{{{{- content | replace({twice}, {once}) -}}}}"
