"""Counts the tokens of each sample as training counts them, and cuts samples that are longer than the context."""

import gc
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from transformers import PreTrainedTokenizerFast

from mantis.config.data_settings import Learn
from mantis.config.model_settings import ModelSettings
from mantis.dataset.mixture_reader import conversation_of
from mantis.models.conversation import IMAGE_MARK, Conversation, learned_answers, learned_from
from mantis.models.family import IGNORE, Processor
from mantis.models.processing.tokenization import ImageTokenError
from mantis.models.registry import family
from mantis.processes import die_with_parent

Batch = list[dict[str, Any]]
AHEAD = 4  # batches that are submitted per process


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length of a sample that was cut to its first `turns` turns.

    The loss counts no turn before the place `learned_from`. `targets` counts the tokens in the loss mask. `whole` is
    the number of tokens before the cut. `turns` is 0 if not even the first exchange fits into the context.
    """

    turns: int
    learned_from: int
    tokens: int
    targets: int
    images: int
    patches: int
    whole: int


@dataclass(frozen=True, kw_only=True)
class Untrainable:
    """Why a sample cannot be trained. The fields mean the same as in RowRejected, which cannot be pickled."""

    reason: str
    value: str
    threshold: str


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Counts the tokens of conversations. It can be pickled, since it holds the tokenizer's folder only."""

    model: ModelSettings
    tokenizer_folder: str
    context_length: int
    learn: Learn

    def count(self, rows: Batch) -> list[Length | Untrainable]:
        """Tokenize rows of data.lance together. Returns a length for each row, or why it cannot be trained.

        A row that is too long loses whole exchanges from its end. So every image keeps all of its tokens, and every
        sample keeps an answer.
        """
        conversations = [conversation_of(row) for row in rows]
        try:
            lengths: list[Length | Untrainable] = [*self._measure(conversations)]
        except ImageTokenError:  # one text of many: count the rows one by one
            lengths = [self._measure_one(conversation) for conversation in conversations]
        return list(map(self._fit, conversations, lengths))

    def _measure_one(self, conversation: Conversation) -> Length | Untrainable:
        try:
            return self._measure([conversation])[0]
        except ImageTokenError:
            token = _processor(self.tokenizer_folder, self.model).image_token
            return Untrainable(reason="text-image-token", value=token, threshold=f"no {token} in the text")

    def _fit(self, conversation: Conversation, length: Length | Untrainable) -> Length | Untrainable:
        """The length within the context, or why nothing of the row can be trained."""
        if isinstance(length, Untrainable):
            return length
        whole = length.whole
        if length.tokens > self.context_length:
            length = self._cut(conversation, length)
        if not length.turns:
            return Untrainable(reason="too-long", value=str(whole), threshold=str(self.context_length))
        if not length.targets:
            said = f"{length.turns} of {len(conversation.turns)} turns fit"
            return Untrainable(reason="nothing-to-learn", value=said, threshold="an answer that is learned")
        return length

    def _cut(self, conversation: Conversation, length: Length) -> Length:
        """Length of the first exchanges that fit into the context. `length` is that of the whole conversation."""

        def tokens(exchanges: int) -> int:
            return self._measure([first_exchanges(conversation, exchanges)])[0].tokens

        kept = bisect_right(range(1, len(conversation.turns) // 2), self.context_length, key=tokens)
        if not kept:
            return replace(length, turns=0)
        return replace(self._measure([first_exchanges(conversation, kept)])[0], whole=length.whole)

    def _measure(self, conversations: list[Conversation]) -> list[Length]:
        processor = _processor(self.tokenizer_folder, self.model)
        firsts = [_first_learned(conversation, self.learn) for conversation in conversations]
        learned = [
            replace(conversation, turns=learned_from(conversation.turns, first))
            for conversation, first in zip(conversations, firsts, strict=True)
        ]
        encodings = processor.encode_batch(learned)
        return [
            Length(
                turns=len(conversation.turns),
                learned_from=first,
                tokens=len(encoding.input_ids),
                targets=len(encoding.labels) - encoding.labels.count(IGNORE),
                images=len(conversation.sizes),
                patches=sum(processor.sample_patches(conversation.sizes)),
                whole=len(encoding.input_ids),
            )
            for conversation, first, encoding in zip(conversations, firsts, encodings, strict=True)
        ]


def _first_learned(conversation: Conversation, learn: Learn) -> int:
    """The place of the first turn that the loss may count. The last answer is the last one that the row lets learn."""
    answers = learned_answers(conversation.turns)
    return answers[-1] if learn == "last" and answers else 0


def first_exchanges(conversation: Conversation, exchanges: int) -> Conversation:
    """Cut a conversation to its first `exchanges` pairs of question and answer, and to their images."""
    turns = conversation.turns[: 2 * exchanges]
    shown = sum(turn.content.count(IMAGE_MARK) for turn in turns)
    return replace(conversation, turns=turns, sizes=conversation.sizes[:shown])


class LengthPool:
    """Pool of processes that count tokens.

    The constructor forks them. Create the pool at the right moment:
    - before this process starts threads or loads Lance, which does not survive a fork;
    - after the model families are imported, since each process would need seconds to import them.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, get_context("fork"), initializer=_begin)
        self._pool.submit(os.getpid).result()  # starts all of them

    def __enter__(self) -> "LengthPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def count(self, counter: Counter, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Length | Untrainable]]]:
        """Yield each batch of rows of data.lance with the result of `Counter.count`, in order."""
        waiting: deque[tuple[Batch, Future[list[Length | Untrainable]]]] = deque()
        for batch in batches:
            waiting.append((batch, self._pool.submit(counter.count, batch)))
            if len(waiting) > AHEAD * self._workers:
                first, lengths = waiting.popleft()
                yield first, lengths.result()
        for first, lengths in waiting:
            yield first, lengths.result()


def _begin() -> None:
    gc.freeze()  # the collector would write to pages that are shared with the first process, and copy them
    die_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # `workers` counts cores, so each process uses one


@lru_cache(maxsize=1)
def _processor(tokenizer_folder: str, model: ModelSettings) -> Processor:
    return family(model.family).processor(PreTrainedTokenizerFast.from_pretrained(tokenizer_folder), model)
