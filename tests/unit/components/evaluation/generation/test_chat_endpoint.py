"""A real server on the loopback address, which fails now and then."""

import base64
import io
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from components.evaluation.generation.chat_endpoint import FIRST_PATIENCE, KEY, OpenEndpoint
from components.evaluation.generation.endpoint_model import model_behind
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import ConfigError, EvaluationError
from mantis.generation.answerer import Question
from mantis.generation.decoding import Decoding
from mantis.generation.sample_images import Picture
from mantis.models.conversation import ImageSize
from tests.helpers.openai_server import OpenAIServer, answer_to, openai_server

DECODING = Decoding(max_new_tokens=8)


@pytest.fixture(autouse=True)
def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def picture(colour: str, kind: str = "PNG") -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    data = buffer.getvalue()
    return Picture(path=colour, sha256=f"{colour}{kind}", size=ImageSize(width=8, height=8), load=lambda: data)


def questions(count: int) -> list[Question]:
    return [
        Question(id=f"q{number}", prompt=f"<image>Is it {number}? <image>", pictures=(picture("red"), picture("blue")),
                 allowed=())
        for number in range(count)
    ]  # fmt: skip


def endpoint(server: OpenAIServer, **changed: Any) -> OpenEndpoint:
    given: dict[str, Any] = {"name": "some-model", "fields": {}, "concurrency": 4, "decoding": DECODING}
    return OpenEndpoint(url=server.url, **{**given, **changed})


def ask(asked: OpenEndpoint, count: int) -> list[str | None]:
    plan = asked.plan(asked.prepare(questions(count)), EvaluationSettings())
    return [text for batch in asked.load("").answer(plan) for text in batch]


def test_a_request_has_the_form_of_the_api() -> None:
    with openai_server() as server:
        responses = ask(endpoint(server), 1)
        body = server.bodies[0]
    first, text, second = body["messages"][0]["content"]
    assert {**body, "messages": None} == {
        "model": "some-model", "messages": None, "max_tokens": 8, "temperature": 0
    }  # fmt: skip
    assert text == {"type": "text", "text": "Is it 0? "}
    for part, colour in ((first, (255, 0, 0)), (second, (0, 0, 255))):
        head, data = part["image_url"]["url"].split(",")
        assert head == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == colour
    assert responses == [answer_to(body)]


def test_an_image_in_another_format_becomes_a_png() -> None:
    with openai_server() as server:
        asked = endpoint(server)
        one = replace(questions(1)[0], pictures=(picture("red", "BMP"), picture("blue", "JPEG")))
        next(iter(asked.answer([asked.prepare([one])])))
        parts = server.bodies[0]["messages"][0]["content"]
    kinds = [part["image_url"]["url"].partition(";")[0] for part in parts if part["type"] == "image_url"]
    assert kinds == ["data:image/png", "data:image/jpeg"]


def test_fields_of_the_request_can_be_set_and_removed() -> None:
    with openai_server() as server:
        fields = {"max_tokens": None, "max_completion_tokens": 64, "reasoning_effort": "low"}
        ask(endpoint(server, fields=fields), 1)
        body = server.bodies[0]
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["reasoning_effort"]) == (64, "low")


def test_a_server_that_fails_now_and_then_gives_the_same_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.evaluation.generation.chat_endpoint.LONGEST_WAIT", 0.02)
    with openai_server() as server:
        calm = ask(endpoint(server), 40)
    with openai_server(failures=0.5) as server:
        assert ask(endpoint(server), 40) == calm
        assert len(server.failed) == 5
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 40
    assert len(set(calm)) > 3


def test_the_number_of_requests_under_way_is_bounded_and_used() -> None:
    with openai_server(seconds=0.4) as server:
        ask(endpoint(server, concurrency=8), 24)
        assert server.most_at_once == 8


def test_all_requests_wait_as_long_as_the_server_says() -> None:
    times: list[float] = []
    lock = threading.Lock()

    def busy_once(_: str) -> int:
        with lock:
            times.append(time.monotonic())
            return 429 if len(times) == 1 else 0

    with openai_server(refuse=busy_once) as server:
        server.retry_after = "1"
        ask(endpoint(server, concurrency=2), 6)
    # Two were under way. The other thread may have begun one more before the answer 429 was read.
    assert len([moment for moment in times if moment - times[0] < 0.9]) <= 3
    assert len(times) == 7


@pytest.mark.parametrize("key", ["wrong-secret", None])
def test_a_refused_key_stops_at_once_and_is_not_shown(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if key is not None:
        monkeypatch.setenv(KEY, key)
    with openai_server(key="secret") as server, pytest.raises(EvaluationError, match="HTTP 401: Incorrect") as raised:
        ask(endpoint(server), 9)
    assert "wrong-secret" not in str(raised.value)
    assert KEY in str(raised.value)


def test_the_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    with openai_server(key="secret") as server:
        assert len(ask(endpoint(server), 3)) == 3


def test_a_refused_question_has_no_response() -> None:
    with openai_server(refuse=lambda text: 400 if "Is it 3?" in text else 0) as server:
        responses = ask(endpoint(server), 9)
    assert [place for place, text in enumerate(responses) if text is None] == [3]


def test_requests_that_are_all_refused_end_the_evaluation() -> None:
    with openai_server(refuse=lambda _: 400) as server:
        with pytest.raises(EvaluationError, match=r"refuses every question: HTTP 400: This content.*--request"):
            ask(endpoint(server), 40)
        assert len(server.bodies) < 20


def test_an_endpoint_that_does_not_answer_ends_the_evaluation() -> None:
    with openai_server() as server:
        pass
    began = time.monotonic()
    with pytest.raises(EvaluationError, match=r"failed .* times for one request"):
        ask(endpoint(server, first_patience=1.0), 3)
    assert time.monotonic() - began < FIRST_PATIENCE


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"content": " B\n"}, "B"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "B"}]}, "B"),
    ],
)
def test_forms_of_an_answer(answer: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.helpers.openai_server.message_to", lambda _: answer)
    with openai_server() as server:
        assert ask(endpoint(server), 1) == [text]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://127.0.0.1/v1", "no http"),
        ("127.0.0.1:8000", "no http"),
        ("http://me:secret@127.0.0.1/v1", "more than an address"),
        ("http://127.0.0.1/v1?key=secret", "more than an address"),
    ],
)
def test_wrong_addresses_are_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        model_behind(url, "name", fields={}, concurrency=1)
    assert "secret" not in str(raised.value)


def test_the_same_endpoint_is_the_same_model() -> None:
    def made(url: str, name: str = "name") -> str:
        return model_behind(url, name, fields={}, concurrency=1).manifest.fingerprint

    assert made("http://a/v1") == made("http://a/v1/") == made("http://a/v1/chat/completions")
    assert len({made("http://a/v1"), made("http://b/v1"), made("http://a/v1", "other")}) == 3
