"""A conversation gets the answers of an evaluation, keeps its turns, and survives bad images."""

from pathlib import Path

import pytest
from PIL import Image

from components.serving.chat_session import ChatSession
from components.serving.live_model import LiveModel
from mantis.errors import InputError
from mantis.generation.answerer import Question
from mantis.generation.live_rows import LiveRow


def shown(question: Question, folder: Path) -> list[Path]:
    """The images of a question as files."""
    files = []
    for place, picture in enumerate(question.pictures):
        files.append(folder / f"{question.id}-{place}.jpg")
        files[-1].write_bytes(picture.load())
    return files


def test_answers_are_those_of_evaluation(
    live_model: LiveModel, evaluated: list[tuple[Question, str]], tmp_path: Path
) -> None:
    assert {len(question.pictures) for question, _ in evaluated} == {0, 1, 2, 3, 4}
    assert len({response for _, response in evaluated}) > 3
    session = ChatSession(live_model)
    pieces: list[str] = []
    for question, response in evaluated:
        session.reset()
        for file in shown(question, tmp_path):
            session.add_image(file)
        pieces.clear()
        reply = session.ask(question.prompt, pieces.append)
        assert reply.text == response
        assert "".join(pieces) == response


def test_a_batch_of_rows_with_limits_of_their_own(live_model: LiveModel, evaluated: list[tuple[Question, str]]) -> None:
    prepared = [live_model.prepare(question) for question, _ in evaluated]
    rows = [LiveRow(max_new_tokens=1 + number % 8) for number in range(len(prepared))]
    whole = [LiveRow(max_new_tokens=8) for _ in prepared]
    replies, full = live_model.reply(prepared, rows), live_model.reply(prepared, whole)
    assert [each.text for each in full] == [response for _, response in evaluated]
    for row, reply, answer, one in zip(rows, replies, full, prepared, strict=True):
        assert reply.tokens == min(row.max_new_tokens, answer.tokens)
        assert reply.finish == ("length" if answer.tokens > row.max_new_tokens else answer.finish) or (
            answer.tokens == row.max_new_tokens
        )
        assert answer.text.startswith(reply.text)
        assert reply.prompt_tokens == one.cost.tokens


def test_the_next_question_sees_the_turns_before_it(
    live_model: LiveModel, evaluated: list[tuple[Question, str]], tmp_path: Path
) -> None:
    question = evaluated[3][0]
    session = ChatSession(live_model)
    for file in shown(question, tmp_path):
        session.add_image(file)
    first = session.ask(question.prompt, str)
    second = session.ask("What colour is the square in image 2?", str)
    assert second.prompt_tokens > first.prompt_tokens + first.tokens
    assert session.images == len(question.pictures)
    session.reset()
    alone = session.ask("What colour is the square in image 2?", str)
    assert alone.prompt_tokens < first.prompt_tokens
    assert session.images == 0


def test_a_question_that_fails_changes_nothing(live_model: LiveModel, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    session = ChatSession(live_model)
    session.add_image(tmp_path / "red.png")
    with pytest.raises(InputError, match="2 <image> marks, and 1 new images"):
        session.ask("<image> and <image>: what differs?", str)
    assert session.images == 1
    one = session.ask("What colour is the square?", str)
    session.reset()
    session.add_image(tmp_path / "red.png")
    assert session.ask("What colour is the square?", str) == one


def test_a_conversation_beyond_the_context_is_refused(live_model: LiveModel) -> None:
    session = ChatSession(live_model)
    with pytest.raises(InputError, match=r"tokens with its images, and the model reads"):
        session.ask("red " * live_model.context, str)


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "folder"])
def test_a_file_that_is_no_image_is_refused(live_model: LiveModel, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "file.jpg"
    if kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("no image")
    elif kind == "cut":
        Image.effect_noise((200, 200), 90).save(tmp_path / "whole.png")
        file.write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    session = ChatSession(live_model)
    with pytest.raises(InputError, match=r"file\.jpg cannot be shown"):
        session.add_image(file)
    assert session.images == 0
