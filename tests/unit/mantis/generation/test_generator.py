import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.evaluation.benchmarks import image_merge
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.benchmarks.image_merge import merged
from components.evaluation.readers.benchmark_reader import read_benchmark
from mantis.errors import EvaluationError
from mantis.generation.answerer import Question
from mantis.generation.decoding import Decoding
from mantis.generation.generation_batches import Cost, batches
from mantis.generation.generator import Generator
from mantis.generation.sample_images import MAX_IMAGE_PIXELS, Picture
from mantis.models.conversation import ImageSize

COLOURS = ("red", "blue", "green", "dark grey")


@pytest.fixture
def questions(eval_source: Path) -> Callable[..., Any]:
    samples = read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source).samples

    def make(allowed: Any = ()) -> Any:
        return [
            Question(id=sample.id, prompt=sample.prompt, pictures=sample.pictures, allowed=allowed)
            for sample in samples
        ]

    return make


def ask(answerer: Generator, asked: list[Question], batch_tokens: int = 300, batch_patches: int = 1000) -> list[str]:
    encoded = [answerer.encoder.encode(question) for question in asked]
    plan = batches(
        [each.cost for each in encoded],
        new_tokens=answerer.decoding.max_new_tokens,
        batch_tokens=batch_tokens,
        batch_patches=batch_patches,
    )
    answers: dict[Any, Any] = {}
    for batch, responses in zip(
        plan, answerer.answer([encoded[place] for place in batch] for batch in plan), strict=True
    ):
        answers |= dict(zip(batch, responses, strict=True))
    return [answers[place] for place in range(len(asked))]


def test_batched_equals_one_at_a_time(generator: Generator, questions: Callable[..., Any]) -> None:
    asked = questions()
    alone = ask(generator, asked, 1)
    assert len(set(alone)) > 10  # answers that are all alike would prove nothing
    assert ask(generator, asked, 400) == alone
    assert ask(generator, asked[::-1], 100_000, 10_000) == alone[::-1]


def test_repeated_pictures_are_encoded_once_and_change_nothing(
    generator: Generator, questions: Callable[..., Any]
) -> None:
    asked = questions()
    pictures = tuple(dict.fromkeys(picture for question in asked[:6] for picture in question.pictures))
    repeated = [
        Question(
            id=question.id,
            prompt=question.prompt,
            pictures=tuple(pictures[(number + place) % len(pictures)] for place in range(len(question.pictures))),
            allowed=(),
        )
        for number, question in enumerate(asked)
    ]
    alone = ask(generator, repeated, 1)
    assert len(set(alone)) > 5
    encoded, original = [], generator.model.base_model.vision_tower.forward
    generator.model.base_model.vision_tower.forward = lambda *a, **k: (
        encoded.append(len(k.get("pixel_values", a[0] if a else None))) or original(*a, **k)
    )
    assert ask(generator, repeated, 100_000) == alone
    assert encoded == [len(pictures)]


@pytest.mark.parametrize("name", ["a token", "end-of-text"])
def test_a_response_ends_at_the_stops_of_the_profile(
    generator: Generator, questions: Callable[..., Any], name: str
) -> None:
    asked = questions()[:8]
    tokenizer = generator.encoder.processor.tokenizer
    whole = ask(generator, asked)
    inside = next(pieces[1] for pieces in map(tokenizer.tokenize, whole) if len(pieces) > 2)
    stop = inside if name == "a token" else name
    if stop == name:
        tokenizer.eos_token = inside
    ended = ask(replace(generator, decoding=Decoding(max_new_tokens=8, stop=(stop,))), asked)
    assert all(long.startswith(short) for short, long in zip(ended, whole, strict=True))
    assert ended != whole


def test_a_stop_token_that_the_model_lacks_is_an_error(generator: Generator, questions: Callable[..., Any]) -> None:
    stopped = replace(generator, decoding=Decoding(max_new_tokens=8, stop=("<|nowhere|>",)))
    with pytest.raises(EvaluationError, match=r"stop = '<\|nowhere\|>' of the profile is no token of this model"):
        ask(stopped, questions()[:1])


def test_restricted_answers_are_valid_ones(generator: Generator, questions: Callable[..., Any]) -> None:
    answers = ask(generator, questions(COLOURS), 500)
    assert set(answers) <= set(COLOURS)
    assert len(set(answers)) > 1
    assert answers == ask(generator, questions(COLOURS), 1)


def test_one_option_may_begin_another(generator: Generator, questions: Callable[..., Any]) -> None:
    for allowed in (("red", "red blue"), ("red",)):
        assert set(ask(generator, questions(allowed)[:20], 500)) <= set(allowed)


def test_pictures_are_decoded_ahead_in_other_threads(generator: Generator, questions: Callable[..., Any]) -> None:
    seen = set()

    def watched(picture: Any) -> Any:
        def load() -> Any:
            seen.add(threading.current_thread().name)
            return picture.load()

        return Picture(path=picture.path, sha256=picture.sha256, size=picture.size, load=load)

    asked = [
        Question(id=q.id, prompt=q.prompt, pictures=tuple(map(watched, q.pictures)), allowed=()) for q in questions()
    ]
    ask(generator, asked)
    assert seen
    assert all(name.startswith("decode") for name in seen)


def cost(tokens: int, patches: int = 1, picture: str = "") -> Cost:
    return Cost(tokens=tokens, patches=patches, picture=picture)


def test_batches_keep_to_both_budgets_and_begin_with_the_longest() -> None:
    costs = [cost(tokens, patches=tokens % 7) for tokens in (5, 90, 17, 33, 50, 12, 8, 61, 40, 22, 300)]
    plan = batches(costs, new_tokens=4, batch_tokens=200, batch_patches=12)
    assert sorted(place for batch in plan for place in batch) == list(range(len(costs)))
    assert plan[0] == [10]  # over the budget by itself
    widths = [max(costs[place].tokens for place in batch) for batch in plan]
    assert widths == sorted(widths, reverse=True)
    for batch, width in list(zip(plan, widths, strict=True))[1:]:
        assert len(batch) * (width + 4) <= 200
        assert sum(costs[place].patches for place in batch) <= 12
    assert len(plan) <= 6


def test_questions_about_one_picture_meet() -> None:
    costs = [cost(20, picture="ab"[place % 2]) for place in range(8)]
    plan = batches(costs, new_tokens=0, batch_tokens=80, batch_patches=100)
    assert [{costs[place].picture for place in batch} for batch in plan] == [{"a"}, {"b"}]


def solid(colour: str, width: int, height: int) -> Picture:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    data = buffer.getvalue()
    return Picture(path=colour, sha256=colour, size=ImageSize(width=width, height=height), load=lambda: data)


def test_merged_pictures_stand_side_by_side() -> None:
    """As merge_images of the official code: the mean height, a border of ten pixels, the mark in front."""
    prompt, (picture,) = merged("Is <image> like <image>?", (solid("red", 40, 20), solid("blue", 30, 60)))
    assert prompt == "<image>\nIs  like ?"
    with Image.open(io.BytesIO(picture.load())) as image:
        assert image.size == (picture.size.width, picture.size.height) == (80 + 10 + 20, 40)
        row = [image.getpixel((x, 20)) for x in (0, 79, 80, 81, 88, 89, 90, 109)]
    red, blue, black, white = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
    assert row == [red, red, black, white, white, black, blue, blue]
    one = (solid("red", 40, 20),)
    assert merged("<image>What?", one) == ("<image>What?", one)


def test_merged_pictures_keep_to_the_limit_of_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the mean height, 150 pixels, the strip alone would have 30,000 x 150 x 150 = 675 million pixels."""
    strip, photo = solid("red", 30_000, 1), solid("blue", 20, 299)
    _, (picture,) = merged("<image><image>", (strip, photo))
    width, height = picture.size.width, picture.size.height
    assert width * height <= MAX_IMAGE_PIXELS < (height + 1) * 30_000 * (height + 1)
    monkeypatch.setattr(image_merge, "MAX_IMAGE_PIXELS", 100_000)  # a test decodes a small picture sooner
    _, (small,) = merged("<image><image>", (strip, photo))
    assert (small.size.width, small.size.height) == (30_000 + 10 + 1, 1)
    assert small.sha256 != picture.sha256  # so that no cached response to the larger one counts
    with Image.open(io.BytesIO(small.load())) as image:
        assert image.size == (30_011, 1)


def test_pictures_that_cannot_be_merged_within_the_limit_give_a_clear_error() -> None:
    wide = Picture(path="a/wide.png", sha256="0", size=ImageSize(width=MAX_IMAGE_PIXELS, height=1), load=bytes)
    with pytest.raises(EvaluationError, match=r"a/wide.png \+ a/wide.png: merged, .* The limit is 64,000,000 pixels"):
        merged("<image><image>", (wide, wide))
