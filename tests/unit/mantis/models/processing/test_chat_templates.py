from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from mantis.errors import ConfigError, InputError
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.processing import chat_templates
from mantis.models.processing.chat_templates import jinja_template, load_chat_template, render, render_prompt
from tests.helpers.content_parts import as_parts

TEMPLATES = sorted(chat_templates._templates())
SIZE = ImageSize(width=8, height=8)
TALK = Conversation(
    id="talk",
    turns=(
        Turn(role="user", content="<image> or <image>?"),
        Turn(role="assistant", content="the {first}"),
        Turn(role="user", content="And <image>"),
    ),
    sizes=(SIZE, SIZE, SIZE),
)


def test_llama3_is_the_official_text() -> None:
    style = load_chat_template("llama3")
    assert style.first + "".join(piece.text for piece in render_prompt(TALK, style)) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a pirate chatbot who always responds in pirate speak!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n"
        "(image 1: <Image><image></Image>) or (image 2: <Image><image></Image>)?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nthe {first}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd (image 3: <Image><image></Image>)<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_compact() -> None:
    assert [(piece.text, piece.target) for piece in render(TALK, load_chat_template("compact"))] == [
        ("image 1<image> or image 2<image>?\n", False),
        ("the {first}<|end_of_text|>", True),
        ("And image 3<image>\n", False),
    ]


def test_the_assistants_header_and_separator_are_learned() -> None:
    learned = [piece.text for piece in render(TALK, load_chat_template("llama3")) if piece.target]
    assert learned == ["<|start_header_id|>assistant<|end_header_id|>\n\nthe {first}<|eot_id|>"]


def test_an_answer_that_is_not_learned_stays_an_answer() -> None:
    talk = replace(TALK, turns=tuple(replace(turn, learned=False) for turn in TALK.turns))
    style = load_chat_template("llama3")
    before, after = render(TALK, style), render(talk, style)
    assert [(piece.text, piece.answer) for piece in after] == [(piece.text, piece.answer) for piece in before]
    assert [piece.target for piece in after] == [False] * len(after)


def test_marks_and_images_must_agree() -> None:
    broken = Conversation(id="x7", turns=TALK.turns, sizes=(SIZE,))
    with pytest.raises(InputError, match=r"x7.*1 images and 3"):
        render(broken, load_chat_template("compact"))


def test_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=rf"vicuna.*{', '.join(TEMPLATES)}"):
        load_chat_template("vicuna")


TEXTS = st.lists(
    st.sampled_from(["<image>", "a", " ", "\n", "{i}", "{{ x }}", '"', "'", "\u00e9\U0001f600"]), max_size=6
)


def saved_text(template: str, messages: list[dict[str, Any]], *, prompt: bool) -> str:
    """What transformers makes of messages with the saved template."""
    source = jinja_template(load_chat_template(template))
    (text,), _ = render_jinja_template([messages], chat_template=source, add_generation_prompt=prompt)
    return str(text)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(deadline=None, max_examples=60)
@given(
    system=TEXTS.map(lambda texts: "".join(texts).replace("<image>", "")),
    said=st.lists(TEXTS.map("".join), min_size=1, max_size=5),
    role=st.sampled_from(["system", "developer"]),
    parts=st.booleans(),
)
def test_the_saved_template_gives_our_text(template: str, system: str, said: list[str], role: str, parts: bool) -> None:
    turns = tuple(Turn(role=("user", "assistant")[number % 2], content=text) for number, text in enumerate(said))
    sizes = (SIZE,) * sum(text.count("<image>") for text in said)
    talk = Conversation(id="talk", system=system, turns=turns, sizes=sizes)
    style = load_chat_template(template)
    messages = [{"role": turn.role, "content": as_parts(turn.content) if parts else turn.content} for turn in turns]
    if system:
        messages.insert(0, {"role": role, "content": as_parts(system) if parts else system})
    ours = style.first + "".join(piece.text for piece in render_prompt(talk, style))
    assert saved_text(template, messages, prompt=True) == ours
    if not style.captions:
        whole = style.first + "".join(piece.text for piece in render(talk, style))
        assert saved_text(template, messages, prompt=False) == whole


def test_a_system_text_stands_where_the_template_has_a_place() -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = {template: saved_text(template, asked, prompt=True) for template in TEMPLATES}
    assert "system<|end_header_id|>\n\nBe brief.<|eot_id|>" in text["llama3"]
    assert text["fuyu"] == "<s>Be brief.\nUSER: Hi<0x04>ASSISTANT:"
    assert text["idefics2"] == "<s>User:Hi<end_of_utterance>\nAssistant:"
    taken = [name for name in TEMPLATES if "Be brief." in text[name]]
    assert taken == [name for name in TEMPLATES if load_chat_template(name).takes_system]
    assert {"fuyu", "llama3"} <= set(taken) <= set(TEMPLATES) - {"compact", "flamingo", "idefics2", "plain"}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "user", "content": "Hi"}, {"role": "system", "content": "No."}], "Message 2 has the role system"),
        ([{"role": "tool", "content": "Hi"}], "Message 1 has the role tool"),
        ([{"role": "system", "content": "<image>"}], "holds an image"),
        ([{"role": "system", "content": [{"type": "image"}]}], "holds an image"),
    ],
)
def test_a_message_without_a_place_is_refused(template: str, messages: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        saved_text(template, messages, prompt=True)
