"""Counts the tokens of each sample as training counts them, and cuts samples that are longer than the context."""

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

from mantis.config.model_settings import ModelSettings
from mantis.dataset.mixture_reader import conversation_of
from mantis.models.conversation import IMAGE_MARK, Conversation
from mantis.models.family import IGNORE, Processor
from mantis.models.registry import family
from mantis.processes import die_with_parent

Batch = list[dict[str, Any]]
AHEAD = 4  # batches that are submitted per process


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length of a sample that was cut to its first `turns` turns.

    `targets` counts the tokens in the loss mask. `whole` counts the tokens before the cut. `turns` is 0 if not even the
    first exchange fits into the context.
    """

    turns: int
    tokens: int
    targets: int
    images: int
    patches: int
    whole: int


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Counts the tokens of conversations. It can be pickled, since it holds the tokenizer's folder only."""

    model: ModelSettings
    tokenizer_folder: str
    context_length: int

    def count(self, rows: Batch) -> list[Length]:
        """Tokenize rows of data.lance together. Returns a length for each row.

        A row that is too long loses whole exchanges from its end. So every image keeps all of its tokens, and every
        sample keeps an answer.
        """
        conversations = [conversation_of(row) for row in rows]
        lengths = self._measure(conversations)
        return [
            length if length.tokens <= self.context_length else self._cut(conversation, length)
            for conversation, length in zip(conversations, lengths, strict=True)
        ]

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
        encodings = processor.encode_batch(conversations)
        return [
            Length(
                turns=len(conversation.turns),
                tokens=len(encoding.input_ids),
                targets=len(encoding.labels) - encoding.labels.count(IGNORE),
                images=len(conversation.sizes),
                patches=sum(processor.image_patches(size) for size in conversation.sizes),
                whole=len(encoding.input_ids),
            )
            for conversation, encoding in zip(conversations, encodings, strict=True)
        ]


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

    def count(self, counter: Counter, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Length]]]:
        """Yield each batch of rows of data.lance with the rows' lengths, in order."""
        waiting: deque[tuple[Batch, Future[list[Length]]]] = deque()
        for batch in batches:
            waiting.append((batch, self._pool.submit(counter.count, batch)))
            if len(waiting) > AHEAD * self._workers:
                first, lengths = waiting.popleft()
                yield first, lengths.result()
        for first, lengths in waiting:
            yield first, lengths.result()


def _begin() -> None:
    die_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # `workers` counts cores, so each process uses one


@lru_cache(maxsize=1)
def _processor(tokenizer_folder: str, model: ModelSettings) -> Processor:
    return family(model.family).processor(PreTrainedTokenizerFast.from_pretrained(tokenizer_folder), model)
