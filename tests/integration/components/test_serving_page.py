"""The page of the server in a real browser: images, questions, figures, errors, and a phone's width."""

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.serving.live_model import LiveModel
from mantis.generation.answerer import Question
from mantis.models.conversation import IMAGE_MARK
from tests.helpers.model_server import Served, model_server

PHONE = {"width": 375, "height": 700}


@pytest.fixture
def served(live_model: LiveModel) -> Iterator[Served]:
    with model_server(live_model, tokens=8, images=4) as server:
        yield server


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """The page, whose requests and errors are noted. Nothing but the server may be asked."""
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    opened = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(served.url)
    yield opened
    assert [url for url in asked if not url.startswith((served.url, "data:"))] == []
    assert [error for error in errors if "status of 4" not in error] == []  # a refusal is logged by the browser
    context.close()


def files_of(question: Question, folder: Path) -> list[Path]:
    files = []
    for place, picture in enumerate(question.pictures):
        files.append(folder / f"{place}.jpg")
        files[-1].write_bytes(picture.load())
    return files


def ask(page: Any, text: str) -> str:
    """Ask, and wait for the figures of the answer."""
    page.fill("#text", text)
    before = page.locator(".figures").count()
    page.press("#text", "Enter")
    page.locator(".figures").nth(before).wait_for()
    return str(page.locator(".assistant > span").last.inner_text())


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_answers_are_those_of_evaluation(
    page: Any, live_model: LiveModel, evaluated: list[tuple[Question, str]], tmp_path: Path, images: int
) -> None:
    question = next(each for each, _ in evaluated if len(each.pictures) == images)
    asked = replace(question, prompt=IMAGE_MARK * images + "What colour is the square?")
    [[expected]] = live_model.answerer.answer([[live_model.prepare(asked)]])  # as the batches of an evaluation
    page.set_input_files("#files", files_of(asked, tmp_path))
    page.locator("#new figure").nth(images - 1).wait_for()
    ask(page, "What colour is the square?")
    assert page.locator(".assistant > span").last.text_content() == expected


def test_drop_ask_and_ask_again(page: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    page.evaluate(
        """data => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), moved = new DataTransfer();
            for (const name of ["a.png", "b.png"]) moved.items.add(new File([bytes], name, { type: "image/png" }));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: moved, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(buffer.getvalue()).decode(),
    )
    page.locator("#new figure").nth(1).wait_for()
    page.locator("#new button").first.click()
    assert page.locator("#new figure").count() == 1
    ask(page, "What colour is the square?")
    assert page.locator(".user img").count() == 1
    assert page.locator("#new figure").count() == 0
    assert "tokens/s" in page.locator(".figures").first.inner_text()
    first = prompt_tokens(page)
    ask(page, "And now?")
    assert prompt_tokens(page) > first + 2  # the second question holds the first turn
    page.click("#reset")
    assert page.locator(".turn").count() == 0


def prompt_tokens(page: Any) -> int:
    return int(page.locator(".figures").last.inner_text().rpartition("prompt of ")[2].split()[0])


def test_refusals_are_shown_and_the_question_stays(page: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    page.set_input_files("#files", [tmp_path / "broken.png"])
    page.locator("#new figure").first.wait_for()
    page.fill("#text", "What is it?")
    page.click("#ask")
    page.locator(".bad").first.wait_for()
    assert "Image 1 is no image of an accepted format" in page.locator(".bad").first.inner_text()
    assert page.input_value("#text") == "What is it?"
    assert page.locator("#new figure").count() == 1
    page.set_input_files("#files", [tmp_path / "broken.png"] * 4)
    page.locator(".bad").nth(1).wait_for()
    assert "The server takes 4 images." in page.locator(".bad").nth(1).inner_text()


def test_a_phone_shows_everything(page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "blue").save(tmp_path / "blue.png")
    page.set_viewport_size(PHONE)
    page.set_input_files("#files", [tmp_path / "blue.png"] * 4)
    page.locator("#new figure").nth(3).wait_for()
    ask(page, "What colour is the square? " + "w" * 120)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for control in ("#text", "#ask", "#reset", ".pick"):
        box = page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert box["height"] >= 40


def test_a_key_is_asked_for(browser: Any, live_model: LiveModel) -> None:
    with model_server(live_model, key="secret", tokens=4) as served:
        page = browser.new_page()
        page.goto(served.url)
        page.fill("#text", "What is it?")
        page.click("#ask")
        page.locator(".bad").first.wait_for()
        assert "The API key is missing or wrong." in page.locator(".bad").first.inner_text()
        page.fill("#key", "secret")
        ask(page, "What is it?")
        page.close()
