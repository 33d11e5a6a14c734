"""Groups questions into batches of similar cost."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a question: tokens of its prompt, patches of its images, and the first image's SHA-256."""

    tokens: int
    patches: int
    picture: str


def batches(costs: Sequence[Cost], *, new_tokens: int, batch_tokens: int, batch_patches: int) -> list[list[int]]:
    """Group the questions, by place in `costs`, into batches of at most `batch_tokens` tokens and `batch_patches`.

    Tokens include padding and an answer of up to `new_tokens`. A question that exceeds a budget alone gets its own
    batch. The longest questions come first, for two reasons:
    - A batch that does not fit into memory fails at once, not at the end.
    - Processes that share the batches finish at about the same time.

    Among questions of equal length, those with the same first image share a batch.
    """
    result: list[list[int]] = []
    width = patches = 0
    order = sorted(range(len(costs)), key=lambda place: (-costs[place].tokens, costs[place].picture, place))
    for place in order:
        cost = costs[place]
        if result and (len(result[-1]) + 1) * width <= batch_tokens and patches + cost.patches <= batch_patches:
            result[-1].append(place)
            patches += cost.patches
        else:
            result.append([place])
            width, patches = cost.tokens + new_tokens, cost.patches
    return result
