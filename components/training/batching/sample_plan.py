"""Decides which samples each step, rank and micro-step trains.

The plan is a pure function of lengths, seed, batch size, epochs, budgets and world size. The samples of a step do not
depend on the world size: each epoch is one seeded permutation, and the epochs form a stream that is cut into batches.
The last batch of an epoch is filled from the next epoch. The last batch of all may be smaller, and its loss is the mean
over its own samples. So no sample is dropped or trained more often than the number of epochs.
"""

import heapq
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.training.batching.balance import Items, balanced
from mantis.errors import ConfigError

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Size of every sample of the mixture's index: tokens (images expanded) and image patches, both [samples]."""

    tokens: NDArray[np.int64]
    patches: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Most tokens and patches of one micro-step of one rank; a larger sample gets its own micro-step."""

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
    """One optimizer step. Every rank has the same number of micro-steps; empty ones take part in the collectives.

    Args:
        samples: positions in the index of all samples, in the order of the stream, [samples].
        ranks: for each rank its micro-steps, each an array of positions.
        idle: share of the ranks' time in which they wait for the slowest rank, by the cost model, 0 to 1.
        imageless: number of micro-steps, over all ranks, without an image; the vision part runs on a dummy there.
    """

    samples: Positions
    ranks: tuple[tuple[Positions, ...], ...]
    idle: float
    imageless: int


class SamplePlan:
    """The plan of a whole training, computed one step at a time."""

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
            raise ConfigError("The mixture holds no sample.", remedy="Its ledger.parquet says why rows were dropped.")
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
        # Ranks wait for each other in every micro-step, so the most expensive micro-steps run at the same time.
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

        ZeRO-3 gathers all parameters in every micro-step, so few micro-steps matter more than balanced ones.
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
        """Put each sample of `queue` (most expensive first) into the cheapest bin with room; None if there is no room.

        `head_starts` [bins] holds the cost that each bin starts with: bins of later rounds shall cost less.
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
        # RandomState: numpy guarantees that its stream never changes; there is no such guarantee for default_rng.
        order = np.random.RandomState([self._seed % 2**32, epoch]).permutation(self.per_epoch)
        return order.astype(np.int64)


def _levels(costs: NDArray[np.float64], rounds: int, ranks: int) -> NDArray[np.float64]:
    """Target cost of the bins of each round, [rounds], most expensive first; `costs` [samples] are descending.

    All rounds cost the same, unless a single sample costs more. Then its round is filled up to that cost, and the later
    rounds cost less.
    """
    levels = []
    left = float(costs.sum()) / ranks
    for index in range(rounds):
        dearest = float(costs[index * ranks]) if index * ranks < len(costs) else 0.0
        levels.append(max(dearest, left / (rounds - index)))
        left = max(0.0, left - levels[-1])
    return np.array(levels)
