"""Finds the rank that the others wait for.

Collectives make every rank as slow as the slowest, so the time of a step names nobody. What a rank does alone does: a
small piece of work on its device, the same for all, between two steps; and how long it waits for its data.
"""

import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from components.core.progress import say
from components.training.engine import Ranks
from components.training.metrics import Row

SIDE = {"cpu": 256, "cuda": 4096}  # of square matrices: about a millisecond each
TIMES = 3  # at first, and at least
SHARE = 0.005  # of the time of training may go into it: the longer, the less it catches a good moment
SLOW = 1.3  # times the median; ranks of one kind of machine are within a few percent
WAITING = 0.1  # of the time
LASTING = 3  # rows: a hiccup is nobody's fault


@dataclass(frozen=True, kw_only=True)
class Look:
    """One comparison of all ranks: the slowest at the same work, and the one that waits longest for data."""

    slowest: int
    slowdown: float  # its time over the (lower) median of all
    waiting: int
    data_share: float  # of that rank's time


def compare(work: Sequence[float], waits: Sequence[float], *, seconds: float) -> Look:
    """`work`: seconds for the same piece of work, `waits`: seconds for data out of `seconds`; both by rank."""
    slowest = max(range(len(work)), key=lambda rank: work[rank])
    waiting = max(range(len(waits)), key=lambda rank: waits[rank])
    return Look(
        slowest=slowest,
        slowdown=work[slowest] / max(statistics.median_low(work), 1e-9),
        waiting=waiting,
        data_share=waits[waiting] / max(seconds, 1e-9),
    )


@dataclass
class Suspect:
    """Who has been the worst for how many rows; `lasting` is True once, when that has become a habit."""

    rank: int = -1
    rows: int = 0

    def lasting(self, rank: int, bad: bool) -> bool:
        self.rows = (self.rows + 1 if rank == self.rank else 1) if bad else 0
        self.rank = rank
        return self.rows == LASTING


@dataclass
class Stragglers:
    """Looks at all ranks with every row of the metrics and says, once, who is slow."""

    ranks: Ranks
    _times: int = TIMES
    _slow: Suspect = field(default_factory=Suspect)
    _waiting: Suspect = field(default_factory=Suspect)

    def look(self, row: Row) -> Row:
        """The fields to add to `row`, this rank's own; collective. None where there is nobody to compare with."""
        if self.ranks.world_size == 1:
            return {}
        own = (piece_of_work(self.ranks.device, self._times), row["data_seconds"], row["seconds"])
        work, waits, seconds = zip(*self.ranks.gather(*own), strict=True)
        self._times = max(TIMES, int(SHARE * min(seconds) * self._times / min(work)))  # the same on every rank
        found = compare(work, waits, seconds=row["seconds"])
        if self._slow.lasting(found.slowest, found.slowdown >= SLOW):
            self._say(found.slowest, f"takes {found.slowdown:.1f} times as long as the median rank for the same work")
        if self._waiting.lasting(found.waiting, found.data_share >= WAITING):
            self._say(found.waiting, f"waits for data {found.data_share:.0%} of the time")
        return {
            "slowest_rank": found.slowest,
            "slowdown": found.slowdown,
            "waiting_rank": found.waiting,
            "data_share_of_waiting_rank": found.data_share,
        }

    def _say(self, rank: int, what: str) -> None:
        if rank == self.ranks.rank:  # only it knows where it runs
            say(f"STRAGGLER: rank {rank} on {socket.gethostname()} {what}, and every rank waits for it.")


def piece_of_work(device: torch.device, times: int) -> float:
    """Seconds for `times` multiplications, the same on every rank."""
    matrix = torch.ones(SIDE[device.type], SIDE[device.type], device=device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        matrix @ matrix
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
