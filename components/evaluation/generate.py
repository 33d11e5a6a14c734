"""Greedy answers of a model, in left-padded batches; the same as one at a time."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from components.core.errors import EvaluationError
from components.core.settings import ModelSettings
from components.evaluation.benchmarks import Decoding
from components.evaluation.reader import Picture
from components.models.conversation import Conversation, Turn
from components.models.family import Family
from components.models.registry import family


@dataclass(frozen=True, kw_only=True)
class Question:
    """One thing to ask: the user's turn, its pictures, and what may be answered (empty: anything)."""

    id: str
    prompt: str
    pictures: tuple[Picture, ...]
    allowed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """A model that is ready to be asked."""

    model: Any  # transformers' model, which publishes no types
    tokenizer: PreTrainedTokenizerFast
    family: Family
    settings: ModelSettings
    decoding: Decoding

    def answer(self, questions: Sequence[Question], *, batch_tokens: int, done: Callable[[int], object]) -> list[str]:
        """A response for each question, in their order; `done(n)` is told how many more were answered.

        Questions of similar length share a batch of at most `batch_tokens` positions, padding included.
        """
        prompts = [self._prompt(question) for question in questions]
        responses = [""] * len(questions)
        for batch in batches([len(prompt) for prompt in prompts], self.decoding.max_new_tokens, batch_tokens):
            answers = self._generate([questions[place] for place in batch], [prompts[place] for place in batch])
            for place, response in zip(batch, answers, strict=True):
                responses[place] = response
            done(len(batch))
        return responses

    def _prompt(self, question: Question) -> list[int]:
        turn = Turn(role="user", content=question.prompt)
        sizes = tuple(picture.size for picture in question.pictures)
        conversation = Conversation(id=question.id, turns=(turn,), sizes=sizes)
        return self.family.encode_prompt(conversation, self.tokenizer, self.settings)

    @torch.inference_mode()
    def _generate(self, questions: list[Question], prompts: list[list[int]]) -> list[str]:
        device = self.model.device
        width = max(len(prompt) for prompt in prompts)
        pad, end = self.tokenizer.pad_token_id, self.family.end_of_answer(self.tokenizer, self.settings)
        input_ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        pictures = [picture.load() for question in questions for picture in question.pictures]
        shown = {}  # without pictures the name itself must be absent: generate() encodes whatever bears it, even None
        if pictures:
            shown["pixel_values"] = self.family.preprocess(pictures, self.settings).to(device, self.model.dtype)
        output: Tensor = self.model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            **shown,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self.decoding.max_new_tokens,
                eos_token_id=end,
                pad_token_id=pad,
            ),
            prefix_allowed_tokens_fn=self._only_allowed(questions, width, end),
        )
        return [self._text(tokens, end) for tokens in output[:, width:].tolist()]

    def _text(self, tokens: list[int], end: int) -> str:
        with suppress(ValueError):  # an answer that is cut off has no end
            tokens = tokens[: tokens.index(end)]
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _only_allowed(
        self, questions: list[Question], width: int, end: int
    ) -> Callable[[int, Tensor], list[int]] | None:
        if not any(question.allowed for question in questions):
            return None
        trees = {answers: self._tree(answers, end) for answers in {question.allowed for question in questions}}
        everything = list(range(len(self.tokenizer)))

        def allowed(row: int, tokens: Tensor) -> list[int]:
            if not questions[row].allowed:
                return everything
            node = trees[questions[row].allowed]
            for token in tokens[width:].tolist():
                node = node.following.get(token, Node())
            return list(node.following) or [end]

        return allowed

    def _tree(self, answers: tuple[str, ...], end: int) -> "Node":
        root = Node()
        for text in answers:
            node = root
            for token in [*self.tokenizer.encode(text, add_special_tokens=False), end]:
                node = node.following.setdefault(token, Node())
        return root


@dataclass(frozen=True)
class Node:
    """A place in the tree of allowed answers."""

    following: dict[int, "Node"] = field(default_factory=dict)


def batches(lengths: Sequence[int], new_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Places of `lengths` in batches of similar length; rows times the longest with its answer is <= `batch_tokens`.

    A prompt that is longer than that by itself gets a batch of its own.
    """
    result: list[list[int]] = []
    # Longest first: what does not fit into memory fails at once, not at the end.
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if result and (len(result[-1]) + 1) * (lengths[result[-1][0]] + new_tokens) <= batch_tokens:
            result[-1].append(place)
        else:
            result.append([place])
    return result


def load_answerer(folder: Path, settings: ModelSettings, decoding: Decoding) -> Answerer:
    """The model and tokenizer of a Hugging Face folder, on the GPU where there is one, in fp32 on a CPU.

    Raises:
        EvaluationError: the folder holds no such model.
    """
    transformers.utils.logging.disable_progress_bar()
    cuda = torch.cuda.is_available()
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype="auto" if cuda else torch.float32, attn_implementation="sdpa", local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{folder} holds no model that can be asked: {str(error).splitlines()[0]}",
            remedy="Delete the model's folder in the store; the same command converts it again.",
        ) from None
    return Answerer(
        model=model.to("cuda" if cuda else "cpu").eval(),
        tokenizer=tokenizer,
        family=family(settings.family),
        settings=settings,
        decoding=decoding,
    )
