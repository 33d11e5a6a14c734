"""Generates greedy responses with any model that transformers loads as image-text-to-text, through its chat template.

Questions are batched where the model allows it: `_check_batching` compares a batch with single questions.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from jinja2 import TemplateError
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import EvaluationError
from mantis.generation.allowed_answers import only_allowed
from mantis.generation.answerer import PreparedQuestion, Question, batches_by_cost
from mantis.generation.chat_messages import messages_of
from mantis.generation.decoding import END_OF_TEXT, Decoding
from mantis.generation.generation_batches import Cost
from mantis.generation.live_rows import LiveRow, Reply, RowFollower, context_of, response_text
from mantis.generation.sample_images import Picture, grey_picture
from mantis.generation.workers import devices
from mantis.images.formats import open_image
from mantis.models.conversation import IMAGE_MARK, ImageSize

logger = logging.getLogger(__name__)

AHEAD = 2  # batches whose images are decoded and resized while the model generates
PATCH = 3 * 14 * 14  # values of a patch, by which the pixels of any processor are counted
# Largest difference between logits of a batch and of single questions, as a multiple of their standard deviation.
TOLERANCE = {torch.float32: 0.01, torch.float16: 0.25, torch.bfloat16: 0.25}
Batch = Sequence[PreparedQuestion]
# What the code of a model raises if its folder or a batch does not suit it.
MODEL_ERRORS = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ImportError, SafetensorError,
    TemplateError
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChatProcessor:
    """Writes questions as chats and counts their tokens. It needs no weights.

    A tokenizer remembers whether it pads, so two threads must not share one. `inputs` works with copies of `processor`.
    """

    processor: Any  # a processor of transformers, which publishes no types
    _idle: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)  # copies that no thread uses
    sizes: dict[ImageSize, tuple[int, int]] = field(default_factory=dict)  # tokens and patches of an image

    def prepare(self, question: Question) -> PreparedQuestion:
        """Count the tokens and patches of a question, from one image of each size. A few tokens may differ.

        Raises:
            EvaluationError: the chat template or the processor cannot express the question.
        """
        wordy = [replace(turn, content=turn.content.replace(IMAGE_MARK, "")) for turn in question.turns]
        *history, last = wordy
        text = replace(question, prompt=last.content, history=tuple(history), pictures=(), allowed=())
        tokens, patches = self._count(text)
        for picture in question.pictures:
            if picture.size not in self.sizes:
                plain = Question(id=question.id, prompt=IMAGE_MARK, pictures=(grey_picture(picture.size),), allowed=())
                empty = Question(id=question.id, prompt=".", pictures=(), allowed=())
                whole, shown = self._count(plain)
                self.sizes[picture.size] = whole - self._count(empty)[0], shown
            tokens += self.sizes[picture.size][0]
            patches += self.sizes[picture.size][1]
        first = question.pictures[0].sha256 if question.pictures else ""
        return PreparedQuestion(question=question, cost=Cost(tokens=tokens, patches=patches, picture=first))

    def inputs(self, batch: Batch) -> Any:
        """Tokenize, resize and pad a batch on the left. Several threads may call it."""
        chats = [_chat(each.question) for each in batch]
        with self._copy() as processor:
            return processor.apply_chat_template(
                chats,
                tokenize=True,
                return_dict=True,
                add_generation_prompt=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )

    @contextmanager
    def _copy(self) -> Iterator[Any]:
        """A copy of the processor that no other thread uses meanwhile."""
        try:
            processor = self._idle.pop()  # a list's pop and append are atomic
        except IndexError:
            processor = deepcopy(self.processor)
        try:
            yield processor
        finally:
            self._idle.append(processor)

    def _count(self, question: Question) -> tuple[int, int]:
        """Tokens and patches of one question."""
        try:
            made = self.inputs([PreparedQuestion(question=question, cost=Cost(tokens=0, patches=0, picture=""))])
        except MODEL_ERRORS as error:
            raise EvaluationError(
                f"The model's processor cannot express a question with {len(question.pictures)} images: "
                f"{type(error).__name__}: {_first_line(error)}",
                remedy="Check that the folder holds a processor and a chat template for images.",
            ) from error
        pixels = sum(values.numel() for name, values in made.items() if "pixel_values" in name)
        return int(made["input_ids"].shape[1]), pixels // PATCH


@dataclass(kw_only=True)
class ChatGenerator:
    """A loaded model that generates responses. `batched` says whether it may answer several questions at a time."""

    model: Any
    processor: ChatProcessor
    decoding: Decoding
    batched: bool

    def answer(self, batches: Iterable[Batch]) -> Iterator[list[str]]:
        """Yield the responses of each batch, in order. Threads prepare the images of the next batches meanwhile."""
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="images") as pool:
            waiting: deque[list[tuple[Batch, Future[Any]]]] = deque()
            for batch in batches:
                groups = [batch] if self.batched else [[each] for each in batch]
                waiting.append([(group, pool.submit(self.processor.inputs, group)) for group in groups])
                if len(waiting) > AHEAD:
                    yield self._responses(waiting.popleft())
            while waiting:
                yield self._responses(waiting.popleft())

    def check_batching(self, batch: Batch) -> None:
        """Compare the first logits of a batch with those of its questions alone. Batching ends if they differ."""
        try:
            together = self._logits(batch)
            alone = torch.cat([self._logits([each]) for each in batch])
        except torch.OutOfMemoryError:
            raise
        except MODEL_ERRORS as error:
            reason = f"{type(error).__name__}: {_first_line(error)}"
        else:
            apart = float((together - alone).abs().max() / alone.std())
            if apart <= TOLERANCE.get(self.model.dtype, 0.0):
                return
            reason = f"logits of a batch differ by {apart:.2g} standard deviations"
        self.batched = False
        logger.warning("This model does not answer in batches, so it answers one question at a time (%s)", reason)

    def _responses(self, groups: Sequence[tuple[Batch, "Future[Any]"]]) -> list[str]:
        return [text for group, inputs in groups for text in self._generate(group, inputs.result())]

    @property
    def context(self) -> int:
        """The number of tokens that the model was made for: a prompt and its response."""
        return context_of(self.model)

    def reply(self, batch: Batch, rows: Sequence[LiveRow]) -> list[Reply]:
        """Answer one batch while its rows follow: the same text as `answer` gives, up to each row's own limits."""
        ends, decode = self._ends(), response_text(self.processor.processor.tokenizer)
        groups = [range(len(batch))] if self.batched else [range(place, place + 1) for place in range(len(batch))]
        replies = []
        for places in groups:
            group = [batch[place] for place in places]
            inputs = self.processor.inputs(group)
            self._generate(group, inputs, [rows[place] for place in places])
            prompts = inputs["attention_mask"].sum(dim=1).tolist()
            replies += [rows[place].reply(size, ends, decode) for place, size in zip(places, prompts, strict=True)]
        return replies

    @torch.inference_mode()
    def _generate(self, batch: Batch, inputs: Any, rows: Sequence[LiveRow] = ()) -> list[str]:
        """Generate the responses of a batch. `rows` may follow them; then their limits hold, not the profile's."""
        tokenizer, ends = self.processor.processor.tokenizer, self._ends()
        longest = max((row.max_new_tokens for row in rows), default=self.decoding.max_new_tokens)
        width = inputs["input_ids"].shape[1]
        questions = [each.question for each in batch]
        output = self.model.generate(
            **inputs.to(self.model.device, self.model.dtype),
            generation_config=self._greedy(longest),
            stopping_criteria=[RowFollower(rows, ends, tokenizer)] if rows else None,
            prefix_allowed_tokens_fn=only_allowed(tokenizer, questions, width, ends[0]),
        )
        return [self._text(tokens, ends) for tokens in output[:, width:].tolist()]

    @torch.inference_mode()
    def _logits(self, batch: Batch) -> torch.Tensor:
        """First logits of every question, [B, V] fp32."""
        inputs = self.processor.inputs(batch).to(self.model.device, self.model.dtype)
        config = self._greedy(1, output_logits=True, return_dict_in_generate=True)
        first: torch.Tensor = self.model.generate(**inputs, generation_config=config).logits[0]
        return first.float()

    def _greedy(self, new_tokens: int, **more: bool) -> GenerationConfig:
        """Plain greedy decoding. The model's own sampling and penalties are left out, since peers are greedy, too."""
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=self._ends(),
            pad_token_id=self.processor.processor.tokenizer.pad_token_id,
            **more,
        )

    def _ends(self) -> list[int]:
        """The tokens that end an answer: the model's, and those of the profile. The tokenizer's own comes first.

        Raises:
            EvaluationError: the vocabulary does not have a token of the profile.
        """
        own = self.processor.processor.tokenizer.eos_token_id
        given = self.model.generation_config.eos_token_id
        ends = given if isinstance(given, list) else [] if given is None else [given]
        known = self.processor.processor.tokenizer.get_vocab()
        stops = [own if stop == END_OF_TEXT else known.get(stop) for stop in self.decoding.stop]
        if None in stops:
            raise EvaluationError(
                f"stop = {', '.join(self.decoding.stop)} of the profile: the model lacks one of these tokens.",
                remedy=f"Name tokens of its vocabulary, or {END_OF_TEXT}.",
            )
        return list(dict.fromkeys([*(each for each in ends if each == own), *ends, *stops])) or [own]

    def _text(self, tokens: list[int], ends: Sequence[int]) -> str:
        length = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        return response_text(self.processor.processor.tokenizer)(tokens[:length]).strip()


@dataclass(frozen=True, kw_only=True)
class OpenChatModel:
    """A model folder of transformers, with its processor. `probe` holds two questions of different lengths."""

    folder: Path
    decoding: Decoding
    processor: ChatProcessor
    probe: list[PreparedQuestion] = field(default_factory=list)

    def prepare(self, questions: Sequence[Question]) -> list[PreparedQuestion]:
        """Count the tokens and patches of every question."""
        return [self.processor.prepare(question) for question in questions]

    def plan(self, prepared: Sequence[PreparedQuestion], settings: EvaluationSettings) -> list[list[PreparedQuestion]]:
        """Group questions of similar length. Those without images have batches of their own."""
        by_length = sorted(prepared, key=lambda each: each.cost.tokens)
        self.probe[:] = [by_length[0], by_length[len(by_length) // 2]] if len(by_length) > 1 else []
        kinds = ([each for each in prepared if bool(each.question.pictures) is shown] for shown in (True, False))
        return [batch for kind in kinds for batch in batches_by_cost(kind, settings, self.decoding)]

    def devices(self, processes: int) -> list[str]:
        """One per GPU, else the CPU."""
        return devices(processes)

    def load(self, device: str) -> ChatGenerator:
        """Load the weights onto `device`. A CPU computes in fp32.

        Raises:
            EvaluationError: transformers cannot load the model, or weights are missing.
        """
        transformers.utils.logging.disable_progress_bar()
        dtype: Any = torch.float32 if device == "cpu" else "auto"
        try:
            model, loaded = AutoModelForImageTextToText.from_pretrained(
                self.folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True,
            )  # fmt: skip
        except MODEL_ERRORS as error:
            raise _not_loaded(self.folder, error) from error
        if loaded["missing_keys"]:
            names = sorted(loaded["missing_keys"])
            raise EvaluationError(
                f"{self.folder} lacks {len(names)} weights of its model, e.g. {names[0]}.",
                remedy="Copy the folder again: it is incomplete, or its config.json belongs to another model.",
            )
        generator = ChatGenerator(
            model=model.to(device).eval(), processor=self.processor, decoding=self.decoding, batched=True
        )
        if self.probe:
            generator.check_batching(self.probe)
        return generator


def open_chat_model(folder: Path, decoding: Decoding) -> OpenChatModel:
    """Load the processor of a Hugging Face folder.

    Raises:
        EvaluationError: the folder holds no processor for images and text, or no chat template.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except MODEL_ERRORS as error:
        raise _not_loaded(folder, error) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise EvaluationError(
            f"{folder} holds a {type(processor).__name__}, not a processor for images and text.",
            remedy="Name the folder of a model that transformers loads as image-text-to-text.",
        )
    if processor.chat_template is None:
        raise EvaluationError(
            f"{folder} holds no chat template.",
            remedy="Add chat_template.jinja. Or import the model: mantis model import FOLDER --family FAMILY.",
        )
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return OpenChatModel(folder=folder, decoding=decoding, processor=ChatProcessor(processor=processor))


def _chat(question: Question) -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": _decoded(part)}
                for part in parts
            ],
        }
        for role, parts in messages_of(question)
    ]


def _decoded(picture: Picture) -> Image.Image:
    with open_image(picture.load()) as image:
        return image.convert("RGB")


def _not_loaded(folder: Path, error: Exception) -> EvaluationError:
    return EvaluationError(
        f"{folder} holds no model that transformers can load as image-text-to-text: "
        f"{type(error).__name__}: {_first_line(error)}",
        remedy="Check the folder. Code inside of a model's folder is not run, and only safetensors are read.",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"
