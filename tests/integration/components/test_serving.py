"""The server, asked by the `openai` client and by a browser that stays silent, lies, or floods it."""

import base64
import http.client
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, NotFoundError, OpenAI
from PIL import Image

from components.serving.batching_engine import AnsweredBatch, BatchingEngine, Ticket
from components.serving.live_model import LiveModel
from mantis.generation.answerer import Question
from mantis.generation.chat_messages import data_uri, openai_request
from mantis.generation.live_rows import LiveRow
from tests.helpers.model_server import Served, model_server
from tests.helpers.waiting import HANG_SECONDS, until

ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "What colour is the square?"}]}


@pytest.fixture
def served(live_model: LiveModel) -> Iterator[Served]:
    with model_server(live_model, tokens=8, image_pixels=1_000_000, pixels=2_000_000, body_bytes=2_000_000) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Any:
    return client_of(served)


def client_of(served: Served, key: str = "none") -> Any:
    """A client that takes every body, also wrong ones."""
    return OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)


def body_of(question: Question, model: LiveModel) -> dict[str, Any]:
    """The request that `mantis benchmark export` writes for a question of a benchmark."""
    decoding = model.decoding.model_copy(update={"stop": ()})
    return openai_request(question, decoding, model="tiny", link=data_uri)


def png(width: int, height: int, colour: str = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def asked_about(*urls: str, text: str = "What colour is the square?") -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "tiny", "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]}


def post(served: Served, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=HANG_SECONDS)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_answers_are_those_of_evaluation(
    client: Any, live_model: LiveModel, evaluated: list[tuple[Question, str]]
) -> None:
    for question, response in evaluated:
        body = body_of(question, live_model)
        whole = client.chat.completions.create(**body)
        assert whole.choices[0].message.content == response
        assert whole.usage.prompt_tokens == live_model.prepare(question).cost.tokens
        chunks = list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == response
        assert chunks[-1].usage == whole.usage
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_fifty_requests_at_once_have_the_answers_of_evaluation(
    served: Served, client: Any, live_model: LiveModel, evaluated: list[tuple[Question, str]]
) -> None:
    asked = [evaluated[number % len(evaluated)] for number in range(50)]

    def ask(pair: tuple[Question, str]) -> str | None:
        return client.chat.completions.create(**body_of(pair[0], live_model)).choices[0].message.content

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, asked))
    assert answers == [response for _, response in asked]
    assert sum(batch.questions for batch in served.batches) == 50
    assert max(batch.questions for batch in served.batches) > 4
    assert served.server.admission.open == served.server.admission.held == 0


def test_more_requests_than_allowed_are_refused_and_memory_stays(live_model: LiveModel) -> None:
    with model_server(live_model, tokens=8, requests=4, body_bytes=4_000_000, held_bytes=16_000_000) as served:
        client = client_of(served)
        image = png(1500, 1500)

        def ask(_: int) -> int:
            try:
                client.chat.completions.create(**asked_about(image, image))
            except APIStatusError as error:
                return error.status_code
            return 200

        def flood() -> list[int]:
            with ThreadPoolExecutor(50) as pool:
                return list(pool.map(ask, range(50)))

        first = flood()
        before = psutil.Process().memory_info().rss
        later = [status for _ in range(3) for status in flood()]
        grown = psutil.Process().memory_info().rss - before
    assert set(first) | set(later) <= {200, 429}
    assert first.count(200) >= 4
    assert 429 in first + later
    assert grown < 150_000_000


def test_a_connection_outlives_the_time_for_which_clients_keep_it(served: Served) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=HANG_SECONDS)
    for idle_seconds in (0, 6):  # httpx, the HTTP library of `openai`, keeps an idle connection for 5 seconds
        time.sleep(idle_seconds)
        connection.request("GET", "/health")
        answer = connection.getresponse()  # raises RemoteDisconnected if the server has closed the connection
        assert json.loads(answer.read())["status"] == "ok"


def test_two_images_in_their_places_and_turns_before(client: Any) -> None:
    red, blue = png(48, 48), png(48, 48, "blue")
    first, swapped = (
        client.chat.completions.create(**asked_about(*urls)).choices[0].message.content
        for urls in ((red, blue), (blue, red))
    )
    assert first != swapped
    turns = [
        *asked_about(red, blue)["messages"],
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And image 2?"},
    ]
    longer = client.chat.completions.create(model="tiny", messages=turns)
    shorter = client.chat.completions.create(**asked_about(red, blue))
    assert longer.usage.prompt_tokens > shorter.usage.prompt_tokens


def test_a_limit_and_a_stop_text_of_the_request(client: Any) -> None:
    whole = client.chat.completions.create(**ASK)
    text = whole.choices[0].message.content
    cut = client.chat.completions.create(**ASK, max_tokens=2)
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (2, "length")
    assert text.startswith(cut.choices[0].message.content)
    stopped = client.chat.completions.create(**ASK, stop=text[3:5])
    assert stopped.choices[0].message.content == text[: text.index(text[3:5])].strip()
    assert stopped.choices[0].finish_reason == "stop"


def bomb() -> str:
    """A PNG of 200 megapixels in a few hundred kilobytes of zeros, whose header tells its size."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1_000_000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
        for kind, value in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def cut_jpeg() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()[:20_000]).decode()}"


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a URL": (lambda: asked_about("https://example.org/a.png"), "image_url_not_allowed"),
    "a file": (lambda: asked_about("file:///etc/passwd"), "image_url_not_allowed"),
    "no base64": (lambda: asked_about("data:image/png;base64,***"), "invalid_image"),
    "no image": (lambda: asked_about("data:image/png;base64,aGVsbG8="), "invalid_image"),
    "a cut image": (lambda: asked_about(cut_jpeg()), "invalid_image"),
    "200 megapixels": (lambda: asked_about(bomb()), "image_too_large"),
    "too many pixels together": (lambda: asked_about(*[png(900, 900)] * 3), "images_too_large"),
    "too many images": (lambda: asked_about(*[png(8, 8)] * 17), "too_many_images"),
    "a mark": (lambda: asked_about(text="<image> what?"), "mark_in_text"),
    "a temperature": (lambda: ASK | {"temperature": 0.7}, "invalid_field"),
    "two answers": (lambda: ASK | {"n": 2}, "invalid_field"),
    "tools": (lambda: ASK | {"tools": [{"type": "function", "function": {"name": "f"}}]}, "invalid_field"),
    "too many tokens": (lambda: ASK | {"max_tokens": 9}, "max_tokens_too_large"),
    "no tokens": (lambda: ASK | {"max_tokens": 0}, "invalid_field"),
    "an empty stop": (lambda: ASK | {"stop": [""]}, "invalid_field"),
    "no messages": (lambda: {"model": "tiny", "messages": []}, "invalid_field"),
    "an answer last": (
        lambda: ASK | {"messages": [*ASK["messages"], {"role": "assistant", "content": "red"}]},
        "no_question",
    ),
    "two questions": (lambda: ASK | {"messages": [*ASK["messages"], *ASK["messages"]]}, "roles_not_alternating"),
    "audio": (lambda: ASK | {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "invalid_field"),
    "a long question": (lambda: asked_about(text="red " * 20_000), "invalid_conversation"),
    "a system text without a place": (
        lambda: ASK | {"messages": [{"role": "system", "content": "Be brief."}, *ASK["messages"]]},
        "invalid_conversation",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_with_400(client: Any, case: str) -> None:
    body, code = REFUSED[case]
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(**body())
    assert refused.value.code == code
    assert len(refused.value.message) > 40  # a sentence, not a code alone
    assert client.chat.completions.create(**ASK).choices[0].message.content  # and the server goes on


def test_other_models_and_bodies(served: Served, client: Any) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(**ASK | {"model": "other"})
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    assert post(served, b"{")[0] == 400
    assert post(served, b"[" * 100_000)[0] == 400
    assert post(served, json.dumps(ASK).encode(), **{"Content-Type": "text/plain"})[0] == 415


def test_a_body_that_is_too_large(served: Served) -> None:
    before = psutil.Process().memory_info().rss
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=HANG_SECONDS)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(1_000_000_000))
    connection.endheaders()
    block = b" " * 1_000_000
    for _ in range(1000):
        connection.send(block)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["code"] == "body_too_large"
    assert psutil.Process().memory_info().rss - before < 100_000_000
    assert served.server.admission.held == 0


def test_a_key_is_needed_where_there_is_one(live_model: LiveModel) -> None:
    with model_server(live_model, key="secret", tokens=8) as served:
        for key in ("wrong", "secre"):
            with pytest.raises(AuthenticationError):
                client_of(served, key).chat.completions.create(**ASK)
        client = client_of(served, "secret")
        assert client.chat.completions.create(**ASK).choices
        assert get(served, "/v1/models")[0] == 401
        assert get(served, "/health")[0] == 200


def get(served: Served, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=HANG_SECONDS)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_client_that_goes_away_frees_the_model(served: Served, client: Any) -> None:
    stream = client.chat.completions.create(**ASK, stream=True)
    next(iter(stream))
    stream.close()
    until("no request is open", lambda: served.server.admission.open == 0)
    assert client.chat.completions.create(**ASK).choices


def test_a_body_that_does_not_come(live_model: LiveModel) -> None:
    with model_server(live_model, tokens=8, body_seconds=0.5) as served:
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=HANG_SECONDS)
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Content-Length", "100")
        connection.endheaders()
        assert connection.getresponse().status == 408
        assert served.server.admission.open == 0


def test_one_failing_question_does_not_fail_its_batch(
    served: Served, live_model: LiveModel, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = type(live_model.answerer)
    whole = answerer.reply

    def failing(self: Any, batch: Any, rows: Any) -> Any:
        if any("poison" in each.question.prompt for each in batch):
            raise RuntimeError("CUDA error: something about the weights")
        return whole(self, batch, rows)

    monkeypatch.setattr(answerer, "reply", failing)
    good = client.chat.completions.create(**ASK).choices[0].message.content

    def ask(number: int) -> str:
        body = asked_about(text="poison") if number == 3 else ASK
        try:
            return str(client.chat.completions.create(**body).choices[0].message.content)
        except APIStatusError as error:
            return f"{error.status_code} {error.message}"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers[3].startswith("500")
    assert "The model failed on this question." in answers[3]
    assert "weights" not in answers[3]
    assert [answer for place, answer in enumerate(answers) if place != 3] == [good] * 7
    assert sum(batch.questions for batch in served.batches) == 8  # the failing one has no answer


def test_a_batch_is_counted_before_its_answers_are_there(
    live_model: LiveModel, evaluated: list[tuple[Question, str]]
) -> None:
    tickets: list[Ticket] = []
    submitted = threading.Event()
    early: list[bool] = []

    def observe(batch: AnsweredBatch) -> None:
        assert submitted.wait(HANG_SECONDS)
        early.append(batch.questions == 1 and not tickets[0].future.done())

    engine = BatchingEngine(live_model, most=4, observe=observe)
    try:
        tickets.append(engine.submit(engine.prepare(evaluated[0][0]), LiveRow(max_new_tokens=1)))
        submitted.set()
        assert tickets[0].future.result(HANG_SECONDS).prompt_tokens > 0
    finally:
        engine.close()
    assert early == [True]


def test_figures_for_prometheus(served: Served, client: Any) -> None:
    reply = client.chat.completions.create(**ASK)
    with pytest.raises(BadRequestError):
        client.chat.completions.create(**ASK | {"n": 2})
    until("the refusal is counted", lambda: 'mantis_requests_total{status="400"} 1.0' in get(served, "/metrics")[1])
    text = get(served, "/metrics")[1]
    assert 'mantis_requests_total{status="200"} 1.0' in text
    assert f"mantis_generated_tokens_total {float(reply.usage.completion_tokens)}" in text
    assert "mantis_requests_open 0.0" in text
    assert "mantis_batch_questions_count 1.0" in text


def test_the_page_names_no_other_host(served: Served) -> None:
    status, page = get(served, "/")
    assert status == 200
    assert "http://" not in page
    assert "https://" not in page
