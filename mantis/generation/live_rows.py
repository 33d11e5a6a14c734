"""Follows the rows of a batch token by token: limits and stop texts of each row, and its text while it grows."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import StoppingCriteria

if TYPE_CHECKING:
    from torch import Tensor

HALF_CHARACTER = "\ufffd"  # what a tokenizer decodes from the first bytes of a character
Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response and its numbers: tokens of the prompt, generated tokens, and what ended it."""

    text: str
    prompt_tokens: int
    tokens: int
    finish: Finish


@dataclass(kw_only=True)
class LiveRow:
    """What the asker of one row wants.

    Args:
        max_new_tokens: limit of this row; the row ends there while others of its batch continue.
        stop: texts that end the response. The response does not hold them.
        send: takes each new piece of the text. The pieces joined are the response. None: nobody reads along.
        cancelled: whether nobody waits for the response any more.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    send: Callable[[str], object] | None = None
    cancelled: Callable[[], bool] = lambda: False
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    sent: str = ""

    def take(self, token: int, ends: Sequence[int], decode: Callable[[list[int]], str]) -> bool:
        """Add a token. Returns whether the row is done."""
        self.tokens.append(token)
        if token in ends:
            self.finish = "stop"
        elif self.cancelled():
            self.finish = "cancelled"
        elif self.stop and _before(decode(self.tokens), self.stop) is not None:
            self.finish = "stop"
        elif len(self.tokens) >= self.max_new_tokens:
            self.finish = "length"
        elif self.send is not None:
            self._send(_settled(decode(self.tokens).strip(), self.stop))
        return self.finish is not None

    def reply(self, prompt_tokens: int, ends: Sequence[int], decode: Callable[[list[int]], str]) -> Reply:
        """The whole response. The rest that was not sent yet is sent."""
        length = next((place for place, token in enumerate(self.tokens) if token in ends), len(self.tokens))
        text = decode(self.tokens[:length])
        before = _before(text, self.stop)
        text = (text if before is None else before).strip()
        if self.send is not None:
            self._send(text)
        return Reply(text=text, prompt_tokens=prompt_tokens, tokens=len(self.tokens), finish=self.finish or "length")

    def _send(self, text: str) -> None:
        if self.send is not None and len(text) > len(self.sent):
            self.send(text[len(self.sent) :])
            self.sent = text


class RowFollower(StoppingCriteria):  # type: ignore[misc]  # transformers publishes no types
    """Gives every new token to its row, and ends rows one by one."""

    def __init__(self, rows: Sequence[LiveRow], ends: Sequence[int], tokenizer: Any) -> None:
        self._rows, self._ends = rows, ends
        self._decode = response_text(tokenizer)

    def __call__(self, input_ids: "Tensor", scores: Any, **_: Any) -> "Tensor":
        """Whether each row of `input_ids` [B, T] is done, [B] bool. Its last column holds the new tokens."""
        new = input_ids[:, -1].tolist()
        done = [
            row.finish is not None or row.take(token, self._ends, self._decode)
            for row, token in zip(self._rows, new, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)


def response_text(tokenizer: Any) -> Callable[[list[int]], str]:
    """The function that decodes the tokens of a response."""
    return lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True))


def context_of(model: Any) -> int:
    """The number of positions of a model's language part; one without a limit has a very large one."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize)


def _before(text: str, stop: Sequence[str]) -> str | None:
    """The text before the first stop text; None if it holds none."""
    places = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(places)] if places else None


def _settled(text: str, stop: Sequence[str]) -> str:
    """The part of a growing text that no later token can change: without half characters and half stop texts.

    Its last word is left out too where a tokenizer could still join a mark to it.
    """
    text = text.rstrip(HALF_CHARACTER)
    for each in stop:
        half = next((size for size in range(len(each) - 1, 0, -1) if text.endswith(each[:size])), 0)
        text = text[: len(text) - half]
    return text.rstrip()
