"""Restricts generation to given answers, token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mantis.generation.answerer import Question

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AnswerNode:
    """A node in the tree of allowed answers. `following` maps the next token to the next node."""

    following: dict[int, "AnswerNode"] = field(default_factory=dict)


def only_allowed(
    tokenizer: Any, questions: Sequence[Question], width: int, end: int
) -> "Callable[[int, Tensor], list[int]] | None":
    """Make the `prefix_allowed_tokens_fn` of a batch; None if every question may be answered with any text.

    `width` is the number of prompt tokens in each row, and `end` the token that ends an answer.
    """
    if not any(question.allowed for question in questions):
        return None
    trees = {answers: _tree(tokenizer, answers, end) for answers in {question.allowed for question in questions}}
    everything = list(range(len(tokenizer)))

    def allowed(row: int, tokens: "Tensor") -> list[int]:
        if not questions[row].allowed:
            return everything
        node = trees[questions[row].allowed]
        for token in tokens[width:].tolist():
            node = node.following.get(token, AnswerNode())
        return list(node.following) or [end]

    return allowed


def _tree(tokenizer: Any, answers: tuple[str, ...], end: int) -> AnswerNode:
    root = AnswerNode()
    for text in answers:
        node = root
        for token in [*tokenizer.encode(text, add_special_tokens=False), end]:
            node = node.following.setdefault(token, AnswerNode())
    return root
