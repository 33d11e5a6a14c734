"""Answer a benchmark in batches, with transformers' generate on one sample at a time as peer."""

import io
import logging
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import Row
from mantis.config.model_settings import ModelSettings
from mantis.generation.answerer import Question
from mantis.generation.decoding import Decoding
from mantis.generation.generation_batches import batches
from mantis.generation.generator import Encoded, Generator, PromptEncoder
from mantis.generation.sample_images import Picture
from mantis.models.conversation import ImageSize
from mantis.models.family import Processor
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family

logger = logging.getLogger(__name__)

REPEATS = 5
GOAL = ">=3"
QUESTIONS = {False: 240, True: 2000}
BATCH_TOKENS, BATCH_PATCHES, NEW_TOKENS = 4_096, 65_536, 8
COLOURS = ("red", "blue", "green", "dark grey", "yellow", "white")
ASKED = (
    "What colour is the shape in image 2?",
    "Are the images alike? Answer same or different.",
    "In which of these images is the largest shape, and what colour does it have there?",
    "Which of these is right?\n (A) red\n (B) blue\n (C) green\n (D) none\n"
    "Answer with the option's letter from the given choices directly.",
)


def generate(full: bool) -> Row:
    """Measure samples per second of a tiny model on short questions about one to eight images, each image used once."""
    answerer = _answerer()
    asked = [answerer.encoder.encode(question) for question in short_questions(QUESTIONS[full])]
    peer, ours = _ask_one_by_one(answerer, asked), _ask(answerer, asked)  # warm-up
    different = sum(mine != other for mine, other in zip(ours, peer, strict=True))
    if different or len(set(peer)) < 10:
        raise RuntimeError(f"{different} of {len(peer)} answers differ; the peer has {len(set(peer))} distinct answers")
    again = [answerer.encoder.encode(question) for question in short_questions(QUESTIONS[full], about_the_same=5)]
    times: dict[str, list[float]] = {"peer": [], "ours": []}
    for repeat in range(REPEATS):
        logger.info("evaluation.generate: %d of %d", repeat, REPEATS)
        for name, ask in (("peer", _ask_one_by_one), ("ours", _ask)):
            start = time.perf_counter()
            ask(answerer, asked)
            times[name].append(time.perf_counter() - start)
    return Row.of_rates(
        "evaluation.generate",
        len(asked),
        times,
        GOAL,
        {
            "peer": "transformers generate, one sample at a time, same model in the same process",
            "questions": len(asked),
            "answers_that_differ": different,
            "images": sum(len(each.question.pictures) for each in asked),
            "parameters": sum(parameter.numel() for parameter in answerer.model.parameters()),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "five_questions_per_image": _rate(answerer, again),
            "five_questions_per_image_not_reused": _rate(answerer, [_own(each) for each in again]),
        },
    )


def _ask(answerer: Generator, asked: Sequence[Encoded]) -> list[str]:
    plan = batches(
        [each.cost for each in asked],
        new_tokens=NEW_TOKENS,
        batch_tokens=BATCH_TOKENS,
        batch_patches=BATCH_PATCHES,
    )
    responses = [""] * len(asked)
    answered = answerer.answer([asked[place] for place in batch] for batch in plan)
    for batch, texts in zip(plan, answered, strict=True):
        for place, text in zip(batch, texts, strict=True):
            responses[place] = text
    return responses


@torch.inference_mode()
def _ask_one_by_one(answerer: Generator, asked: Sequence[Encoded]) -> list[str]:
    """Answer like the official scripts: load, preprocess, generate, decode, then the next sample."""
    encoder, responses = answerer.encoder, []
    end = encoder.processor.end_of_answer
    for each in asked:
        pictures = [picture.load() for picture in each.question.pictures]
        input_ids = torch.tensor([each.tokens])
        output = answerer.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=encoder.processor.preprocess(pictures).values,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=end,
            pad_token_id=encoder.processor.tokenizer.pad_token_id,
        )
        text = encoder.processor.tokenizer.decode(output[0, input_ids.shape[1] :].tolist(), skip_special_tokens=True)
        responses.append(text.strip())
    return responses


def _own(each: Encoded) -> Encoded:
    """Return the same question with images under other names, so that no other question shares them."""
    pictures = (replace(picture, sha256=f"{each.question.id}:{picture.sha256}") for picture in each.question.pictures)
    return replace(each, question=replace(each.question, pictures=tuple(pictures)))


def _rate(answerer: Generator, asked: Sequence[Encoded]) -> float:
    """Return the samples per second of ours, the median of REPEATS."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _ask(answerer, asked)
        seconds.append(time.perf_counter() - start)
    return len(asked) / statistics.median(seconds)


def short_questions(count: int, *, about_the_same: int = 1) -> list[Question]:
    """Return `count` questions about one to eight images; `about_the_same` consecutive ones share their images."""
    rng = np.random.default_rng(0)
    questions: list[Question] = []
    shown: tuple[Picture, ...] = ()
    for number in range(count):
        if number % about_the_same == 0:
            images = 1 + number // about_the_same % 8
            shown = tuple(_picture(rng, f"{number}-{place}") for place in range(images))
        prompt = "<image>" * len(shown) + ASKED[number % len(ASKED)]
        questions.append(Question(id=str(number), prompt=prompt, pictures=shown, allowed=()))
    return questions


def _picture(rng: np.random.Generator, name: str) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return Picture(path=name, sha256=name, size=ImageSize(width=96, height=96), load=lambda: data)


def random_demo_model() -> tuple[Any, Processor]:
    """Build the demo's model with random weights, scaled up so that its answers depend on the images."""
    settings = ModelSettings(prompt="compact")
    llava = family(settings.family)
    tokenizer = train_tokenizer([*ASKED, *COLOURS] * 3, vocabulary=400, special_tokens=llava.special_tokens())
    processor = llava.processor(tokenizer, settings)
    model: Any = llava.build(processor, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model, processor


def _answerer() -> Generator:
    model, processor = random_demo_model()
    model.set_attn_implementation("sdpa")
    encoder = PromptEncoder(family=family(processor.settings.family), processor=processor)
    return Generator(model=model.eval(), encoder=encoder, decoding=Decoding(max_new_tokens=NEW_TOKENS))
