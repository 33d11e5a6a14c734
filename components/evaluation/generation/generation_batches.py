"""Which questions are asked together: batches of similar cost."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a question takes: positions of its prompt, patches of its pictures, and the first picture's hash."""

    tokens: int
    patches: int
    picture: str


def batches(costs: Sequence[Cost], *, new_tokens: int, batch_tokens: int, batch_patches: int) -> list[list[int]]:
    """Places of `costs` in batches of at most `batch_tokens` positions and `batch_patches` patches.

    Positions are counted with padding and with the answer, which may be `new_tokens` long. A question that is over a
    budget by itself gets a batch of its own. Longest first: what does not fit into memory fails at once, not at the
    end, and processes that share the batches finish together. Among equals those about the same picture meet.
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
