"""Which sample is trained in which step, on which rank, in which micro-step.

A pure function of lengths, seed, batch size, epochs, budgets and world size, computed step by step. What a step trains
does not depend on the world size: samples run in a stream of one seeded permutation per epoch, cut into batches. The
last batch of an epoch is filled from the next epoch; the last batch of all may be smaller and is normalized by its own
size, so no sample is dropped and none is trained more often than the epochs say.
"""

import heapq
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.core.errors import ConfigError
from components.training.balance import Items, balanced

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Size of every sample of the mixture's index: tokens (images expanded) and image patches, both [samples]."""

    tokens: NDArray[np.int64]
    patches: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What one micro-step of one rank may hold; a single sample beyond them gets a micro-step of its own."""

    tokens: int
    patches: int


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Time of a sample in units of one token's linear layers: `tokens + quadratic * tokens^2 + patch * patches`."""

    quadratic: float
    patch: float

    def __call__(self, tokens: NDArray[np.int64], patches: NDArray[np.int64]) -> NDArray[np.float64]:
        linear = tokens.astype(np.float64)
        return linear + self.quadratic * linear**2 + self.patch * patches


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One optimizer step: all its samples in their order, and each rank's micro-steps of positions in the index.

    Every rank has the same number of micro-steps; one without samples still takes part in the collectives. `idle` is
    the share of the ranks' time, by the cost model, in which they wait for the slowest one. `imageless` counts the
    micro-steps of all ranks that hold no image, where the vision part runs on a dummy.
    """

    samples: Positions
    ranks: tuple[tuple[Positions, ...], ...]
    idle: float
    imageless: int


class Plan:
    """The whole training, one step at a time."""

    def __init__(
        self,
        lengths: Lengths,
        *,
        seed: int,
        batch_size: int,
        epochs: int,
        max_steps: int | None,
        budgets: Budgets,
        cost: CostModel,
    ) -> None:
        if not len(lengths.tokens):
            raise ConfigError(
                "The mixture holds no sample.", remedy="Look into its ledger.parquet for why rows were dropped."
            )
        self._lengths, self._budgets = lengths, budgets
        self._seed, self._batch = seed, batch_size
        self._costs = cost(lengths.tokens, lengths.patches)
        self.per_epoch = len(lengths.tokens)
        self._total = self.per_epoch * epochs
        whole = -(-self._total // batch_size)
        self.steps = min(whole, max_steps or whole)
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def samples(self, step: int) -> Positions:
        """Positions in the index that step `step` (from 0) trains, in the order of the stream."""
        first, end = step * self._batch, min((step + 1) * self._batch, self._total)
        parts = []
        while first < end:
            epoch, offset = divmod(first, self.per_epoch)
            count = min(end - first, self.per_epoch - offset)
            parts.append(self._order(epoch)[offset : offset + count])
            first += count
        return np.concatenate(parts)

    def step(self, step: int, *, world_size: int) -> StepPlan:
        """Step `step`, cut into micro-steps for `world_size` ranks."""
        samples = self.samples(step)
        lengths = self._lengths
        items = Items(
            costs=self._costs[samples],
            sizes=np.stack([lengths.tokens[samples], lengths.patches[samples]], axis=1),
            limits=np.array([self._budgets.tokens, self._budgets.patches]),
        )
        # Ranks wait for each other in every micro-step: the dearest go together, then the next ones.
        bins = balanced(self._bins(samples, world_size), items, ranks=world_size)
        loads = [float(items.costs[members].sum()) for members in bins]
        ranks = tuple(tuple(samples[members] for members in bins[rank::world_size]) for rank in range(world_size))
        critical = sum(loads[start] for start in range(0, len(bins), world_size))
        return StepPlan(
            samples=samples,
            ranks=ranks,
            idle=max(0.0, 1 - sum(loads) / (critical * world_size)),
            imageless=sum(not lengths.patches[part].any() for rank in ranks for part in rank),
        )

    def _bins(self, samples: Positions, world_size: int) -> list[list[int]]:
        """Members (indices into `samples`, ascending) of the fewest micro-steps per rank that keep the budgets.

        Every micro-step costs ZeRO-3 a gather of all parameters, so their number is made small before they are
        balanced.
        """
        tokens, patches = self._lengths.tokens[samples], self._lengths.patches[samples]
        over = (tokens > self._budgets.tokens) | (patches > self._budgets.patches)
        alone = [[int(index)] for index in np.flatnonzero(over)]
        rest = np.flatnonzero(~over)
        costs = self._costs[samples]
        queue = [int(index) for index in rest[np.argsort(-costs[rest], kind="stable")]]
        needed = max(
            int(tokens[rest].sum()) / self._budgets.tokens,
            int(patches[rest].sum()) / self._budgets.patches,
        )
        rounds = max(1, -(-(len(alone) + int(np.ceil(needed))) // world_size))
        while True:
            levels = _levels(np.sort(costs)[::-1], rounds, world_size)
            head_starts = np.repeat(levels[0] - levels, world_size)[len(alone) :]
            found = self._spread(queue, tokens, patches, costs, head_starts.tolist())
            if found is not None:
                return alone + found
            rounds += 1

    def _spread(
        self,
        queue: list[int],
        tokens: NDArray[np.int64],
        patches: NDArray[np.int64],
        costs: NDArray[np.float64],
        head_starts: list[float],
    ) -> list[list[int]] | None:
        """`queue` (dearest first) over bins, each sample into the cheapest bin that has room; None: no room.

        A bin of a round that shall cost less than the first one counts as filled with the difference.
        """
        bins: list[list[int]] = [[] for _ in head_starts]
        held = [(0, 0)] * len(bins)
        heap = [(load, index) for index, load in enumerate(head_starts)]
        heapq.heapify(heap)
        for sample in queue:
            token, patch = int(tokens[sample]), int(patches[sample])
            full = []
            while heap:
                load, index = heapq.heappop(heap)
                if held[index][0] + token <= self._budgets.tokens and held[index][1] + patch <= self._budgets.patches:
                    break
                full.append((load, index))
            else:
                return None
            bins[index].append(sample)
            held[index] = (held[index][0] + token, held[index][1] + patch)
            heapq.heappush(heap, (load + float(costs[sample]), index))
            for item in full:
                heapq.heappush(heap, item)
        return [sorted(members) for members in bins]

    def _shuffled(self, epoch: int) -> Positions:
        # RandomState: numpy promises that its stream never changes, which it does not for default_rng.
        order = np.random.RandomState([self._seed % 2**32, epoch]).permutation(self.per_epoch)
        return order.astype(np.int64)


def _levels(costs: NDArray[np.float64], rounds: int, ranks: int) -> NDArray[np.float64]:
    """What the bins of each round shall cost, [rounds], the dearest round first; of costs in descending order.

    Rounds are alike, unless a single sample costs more than that: then its round is filled up to it, and the rounds
    behind it cost less.
    """
    levels = []
    left = float(costs.sum()) / ranks
    for index in range(rounds):
        dearest = float(costs[index * ranks]) if index * ranks < len(costs) else 0.0
        levels.append(max(dearest, left / (rounds - index)))
        left = max(0.0, left - levels[-1])
    return np.array(levels)
