"""Prepares the text of a response: cuts it at a length and removes its markup."""

import re
from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# A longer response keeps this number of characters: one half from its beginning and one half from its end. The rules
# look for an answer at these two places. The limit bounds the time of every rule.
LIMIT = 32_768
RECENT = 16  # responses whose plain text is kept: several rules read the same one

_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_SAME_MARKS = {
    "\u3000": " ", "\u00a0": " ", "\u3002": ". ", "\u3001": ",", "\u3010": "[", "\u3011": "]", "\u3014": "[",
    "\u3015": "]", "\u300c": '"', "\u300d": '"', "\u300e": '"', "\u300f": '"', "\u201c": '"', "\u201d": '"',
    "\u2018": "'", "\u2019": "'", "\u2013": "-", "\u2014": "-", "\u2011": "-", "\u200b": "", "\ufeff": "",
}  # fmt: skip
ASCII = _FULL_WIDTH | str.maketrans(_SAME_MARKS)

# End-of-text and turn tokens of the usual tokenizers. `<think>` holds a draft, so only the text behind it counts.
TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:eos|bos|pad|unk|end_of_turn|end_of_utterance)>|\[/?INST\]", re.I)
THOUGHT = "</think>"
ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,15} ?/?>")
BOX = re.compile(r"\\f?boxed ?\{")
TEX = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|left|right)(?![a-zA-Z])")
MARKS = str.maketrans("", "", "*`#${}\\")


class CachedIfShort(Generic[P, R]):
    """Cache a function of a text, its first argument, for texts of up to `longest` characters.

    Responses repeat short texts. A cache of long ones would hold gigabytes.
    """

    longest = 200

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self._cached = lru_cache(maxsize=131_072)(function)
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, or return its cached result."""
        text = args[0]
        short = isinstance(text, str) and len(text) <= self.longest
        return self._cached(*args, **kwargs) if short else self._function(*args, **kwargs)  # type: ignore[arg-type]

    def cache_clear(self) -> None:
        """Forget every result."""
        self._cached.cache_clear()


def cut(response: str) -> str:
    """The response, or its first and last LIMIT / 2 characters on separate lines if it is longer."""
    half = LIMIT // 2
    return response if len(response) <= LIMIT else f"{response[:half]}\n{response[-half:]}"


def without_tokens(text: str) -> str:
    """The text without end-of-text and turn tokens."""
    return TOKEN.sub("", text) if "<" in text or "[" in text else text


@lru_cache(maxsize=RECENT)
def plain(text: str) -> str:
    """The text without Markdown, tags, TeX commands and end tokens.

    `\\boxed{B}` and `<answer>B</answer>` become "Answer: B". Full-width letters and brackets become ASCII.
    """
    if not text.isascii():
        text = text.translate(ASCII)
    text = without_tokens(text)
    if "<" in text:
        behind = text.rpartition(THOUGHT)[2]
        text = ANSWER_TAG.sub(lambda tag: "\n" if tag[1] else "\nAnswer: ", behind if behind.strip() else text)
        text = TAG.sub("", text)
    if "\\" in text:
        text = TEX.sub("", BOX.sub("\nAnswer: ", text))
    return text.translate(MARKS).strip()
