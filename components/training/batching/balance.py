"""Balances micro-steps: samples change places until no rank waits long for another.

A round is the micro-steps that the ranks take at the same time, one each. Ranks wait for each other: a round costs as
much as its most expensive micro-step, and a step costs the sum of its rounds. Rounds may differ: a round with one very
long sample is filled up to its cost.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ENOUGH = 0.01  # idle share of the ranks' time at which the search stops
CHANGES = 8  # most changes per optimizer step: a few milliseconds
TIE_BREAK = (
    1e-3  # weight of evenness beside the critical path, so that two equally expensive micro-steps do not end the search
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Items:
    """Costs [n] and sizes [n, 2] (tokens, patches) of a step's samples, and the limits of a micro-step's sizes [2]."""

    costs: Floats
    sizes: Ints
    limits: Ints


def balanced(bins: list[list[int]], items: Items, *, ranks: int) -> list[list[int]]:
    """The same samples in the same number of bins, with even rounds of `ranks` bins; the most expensive round is first.

    Every bin that kept the limits still keeps them. The samples of a bin are ascending.
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
    """Moves and exchanges samples between bins; changes `home` [n], the bin of each sample, in place."""

    def __init__(self, home: Ints, items: Items, *, bins: int, ranks: int) -> None:
        self._home, self._items, self._ranks = home, items, ranks
        self._loads = np.bincount(home, weights=items.costs, minlength=bins)
        self._held = np.stack(
            [np.bincount(home, weights=column, minlength=bins).astype(np.int64) for column in items.sizes.T], axis=1
        )
        # A move is an exchange with an empty sample; every bin has one.
        self._costs = np.concatenate([items.costs, np.zeros(bins)])
        self._sizes = np.concatenate([items.sizes, np.zeros((bins, 2), dtype=np.int64)])
        self._nothing = np.arange(bins)

    def run(self) -> None:
        """Exchange samples until the rounds are even enough, or nothing helps."""
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
        """Take a sample from the most expensive bin of a round; returns False if nothing gets better."""
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
        """Whether each exchange keeps the limits of both bins, [mine, theirs]."""
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
