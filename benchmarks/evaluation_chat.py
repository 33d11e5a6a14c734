"""Answer a benchmark in batches with a model that is none of ours; the peer asks it one question at a time."""

import io
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.evaluation import ASKED, COLOURS, NEW_TOKENS, QUESTIONS, short_questions
from benchmarks.rows import Row
from benchmarks.tiny_chat_model import build_tiny_chat_model
from mantis.config.evaluation_settings import EvaluationSettings
from mantis.generation.answerer import PreparedQuestion, Question
from mantis.generation.chat_generator import ChatGenerator, open_chat_model
from mantis.generation.decoding import Decoding
from mantis.models.conversation import IMAGE_MARK

logger = logging.getLogger(__name__)

REPEATS = 5
GOAL = ">=2"
SETTINGS = EvaluationSettings(batch_tokens=4_096)


def generate_chat(full: bool) -> Row:
    """Measure samples per second of a tiny Qwen2.5-VL on short questions about one to eight images.

    The peer does what the examples of transformers do: chat template, processor, `generate`, decode, the next question.
    """
    questions = short_questions(QUESTIONS[full])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_tiny_chat_model(folder, [*ASKED, *COLOURS] * 3)
        opened = open_chat_model(folder, Decoding(max_new_tokens=NEW_TOKENS))
        plan = opened.plan(opened.prepare(questions), SETTINGS)
        generator = opened.load("cpu")
        if not generator.batched:
            raise RuntimeError("the check of batches failed for a model that answers in batches")
        peer = _Peer(folder)
    expected, found = peer.ask(questions), _ask(generator, plan)  # warm-up
    different = sum(found[question.id] != text for question, text in zip(questions, expected, strict=True))
    if different or len(set(expected)) < 10:
        raise RuntimeError(f"{different} answers differ; the peer has {len(set(expected))} distinct answers")
    times: dict[str, list[float]] = {"peer": [], "ours": []}
    for repeat in range(REPEATS):
        logger.info("evaluation.generate_chat: %d of %d", repeat, REPEATS)
        start = time.perf_counter()
        peer.ask(questions)
        middle = time.perf_counter()
        _ask(generator, plan)
        times["peer"].append(middle - start)
        times["ours"].append(time.perf_counter() - middle)
    return Row.of_rates(
        "evaluation.generate_chat",
        len(questions),
        times,
        GOAL,
        {
            "peer": "transformers' chat template and generate, one question at a time, same weights, same process",
            "questions": len(questions),
            "batches": len(plan),
            "answers_that_differ": different,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        },
    )


def _ask(generator: ChatGenerator, plan: Sequence[Sequence[PreparedQuestion]]) -> dict[str, str]:
    answered = zip(plan, generator.answer(plan), strict=True)
    return {each.question.id: text for batch, texts in answered for each, text in zip(batch, texts, strict=True)}


class _Peer:
    """The model as the examples of transformers use it."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def ask(self, questions: Sequence[Question]) -> list[str]:
        """Answer one question after the other."""
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> str:
        images = [
            {"type": "image", "image": Image.open(io.BytesIO(picture.load())).convert("RGB")}
            for picture in question.pictures
        ]
        text = {"type": "text", "text": question.prompt.replace(IMAGE_MARK, "")}
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": [*images, text]}],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
        )
        output = self.model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        return str(self.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()
