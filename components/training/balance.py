"""Micro-steps that take the same time: samples change places until no rank waits long for another.

Ranks wait for each other in every micro-step, so what counts is the sum, over the rounds of micro-steps that ranks
take together, of the dearest of each. Rounds may differ: a round that holds one very long sample is filled up to it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ENOUGH = 0.01  # idle share of the ranks' time below which nothing more is tried
CHANGES = 8  # at most, for each step: a few milliseconds
TIE_BREAK = 1e-3  # weight of evenness beside the critical path, so that two equally dear micro-steps do not end it

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Items:
    """Cost and sizes of a step's samples: costs [n], sizes [n, 2] (tokens, patches), and the limits of sizes [2]."""

    costs: Floats
    sizes: Ints
    limits: Ints


def balanced(bins: list[list[int]], items: Items, *, ranks: int) -> list[list[int]]:
    """The same samples in as many bins, whose rounds of `ranks` are even; in rounds, the dearest first.

    Every bin keeps the limits that it kept before. Samples of a bin are ascending.
    """
    bins = _in_rounds(bins, items.costs)
    home = np.empty(len(items.costs), dtype=np.int64)
    for index, members in enumerate(bins):
        home[members] = index
    _Search(home, items, bins=len(bins), ranks=ranks).run()
    found: list[list[int]] = [[] for _ in bins]
    for sample, index in enumerate(home.tolist()):
        found[index].append(sample)
    return _in_rounds(found, items.costs)


def _in_rounds(bins: list[list[int]], costs: Floats) -> list[list[int]]:
    loads = [float(costs[members].sum()) for members in bins]
    return [bins[index] for index in sorted(range(len(bins)), key=lambda index: (-loads[index], index))]


class _Search:
    """Moves and exchanges of samples between bins; `home` [n] says where each one is and is changed in place."""

    def __init__(self, home: Ints, items: Items, *, bins: int, ranks: int) -> None:
        self._home, self._items, self._ranks = home, items, ranks
        self._loads = np.bincount(home, weights=items.costs, minlength=bins)
        self._held = np.stack(
            [np.bincount(home, weights=column, minlength=bins).astype(np.int64) for column in items.sizes.T], axis=1
        )
        # A move is an exchange with nothing, of which every bin has one.
        self._costs = np.concatenate([items.costs, np.zeros(bins)])
        self._sizes = np.concatenate([items.sizes, np.zeros((bins, 2), dtype=np.int64)])
        self._nothing = np.arange(bins)

    def run(self) -> None:
        """Change until it is even enough, or nothing helps."""
        mean = self._loads.sum() / self._ranks
        for _ in range(CHANGES):
            rounds = self._loads.reshape(-1, self._ranks)
            peaks = rounds.max(axis=1)
            if mean >= (1 - ENOUGH) * peaks.sum():
                return
            gaps = peaks - rounds.mean(axis=1)
            if not any(self._relieve(int(index), peaks) for index in np.argsort(-gaps, kind="stable")):
                return

    def _relieve(self, round_: int, peaks: Floats) -> bool:
        """Take something from the dearest bin of a round; False where that makes nothing better."""
        first = round_ * self._ranks
        dearest = first + int(self._loads[first : first + self._ranks].argmax())
        second = float(np.partition(self._loads[first : first + self._ranks], -2)[-2]) if self._ranks > 1 else 0.0
        mine = np.flatnonzero(self._home == dearest)
        if not len(mine):  # a round of empty micro-steps
            return False
        theirs = np.concatenate([self._home, self._nothing])
        shift = self._costs[mine][:, None] - self._costs
        left, other = self._loads[dearest] - shift, self._loads[theirs] + shift
        allowed = (shift > 0) & (theirs != dearest) & self._fits(mine, theirs, dearest)
        within = theirs // self._ranks == round_
        peak = np.maximum(left, second)
        after = np.where(within, np.maximum(peak, other), peak + np.maximum(other - peaks[theirs // self._ranks], 0))
        evenness = shift * (self._loads[dearest] - self._loads[theirs] - shift) / self._loads[dearest]
        score = np.where(allowed, peaks[round_] - after + TIE_BREAK * evenness, -np.inf)
        row, column = np.unravel_index(int(score.argmax()), score.shape)
        if score[row, column] <= 1e-9 * peaks[round_]:
            return False
        self._exchange(int(mine[row]), int(column), dearest, int(theirs[column]))
        return True

    def _fits(self, mine: Ints, theirs: Ints, dearest: int) -> NDArray[np.bool_]:
        """Which exchanges keep the limits of both bins, [mine, theirs]."""
        limits = self._items.limits
        change = self._sizes[mine][:, None, :] - self._sizes
        here, there = self._held[dearest] - change <= limits, self._held[theirs] + change <= limits
        return np.asarray((here & there).all(axis=2))

    def _exchange(self, sample: int, partner: int, dearest: int, other: int) -> None:
        self._home[sample] = other
        if partner < len(self._home):
            self._home[partner] = dearest
        shift = self._costs[sample] - self._costs[partner]
        self._loads[dearest] -= shift
        self._loads[other] += shift
        change = self._sizes[sample] - self._sizes[partner]
        self._held[dearest] -= change
        self._held[other] += change
