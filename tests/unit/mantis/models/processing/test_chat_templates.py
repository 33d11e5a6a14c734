from dataclasses import replace

import pytest

from mantis.errors import ConfigError, InputError
from mantis.models.conversation import Conversation, ImageSize, Turn
from mantis.models.processing.chat_templates import load_chat_template, render, render_prompt

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
    with pytest.raises(ConfigError, match=r"vicuna.*compact, flamingo, fuyu, idefics2, llama3, plain"):
        load_chat_template("vicuna")
