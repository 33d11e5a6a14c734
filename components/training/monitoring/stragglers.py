"""Finds the rank that the others wait for.

Collectives make every rank as slow as the slowest one, so the time of a step does not name it. Two figures do: the time
of a small piece of work that every rank does alone between two steps, and the time that a rank waits for its data.
"""

import logging
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from components.training.engine.deepspeed_engine import DistributedContext
from components.training.monitoring.step_metrics import Row

logger = logging.getLogger(__name__)

SIDE = {"cpu": 256, "cuda": 4096}  # rows of square matrices: one product takes about a millisecond
TIMES = 3  # products at first, and at least
SHARE = 0.005  # share of the training time that the products may take: longer measurements are more reliable
SLOW = 1.3  # multiple of the median; ranks on equal machines differ by a few percent
WAITING = 0.1  # share of the time
LASTING = 3  # rows in which a rank must be the worst before the log names it


@dataclass(frozen=True, kw_only=True)
class Look:
    """One comparison of all ranks: the slowest rank at the same work, and the rank that waits longest for data."""

    slowest: int
    slowdown: float  # its time divided by the (lower) median of all ranks
    waiting: int
    data_share: float  # share of its time that the waiting rank waits for data, 0 to 1


def compare(work: Sequence[float], waits: Sequence[float], *, seconds: float) -> Look:
    """Compare the ranks by `work` (seconds for the same work) and `waits` (seconds for data, out of `seconds`)."""
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
    """The rank that was the worst in the last `rows` rows; `lasting` is True once, in the third row."""

    rank: int = -1
    rows: int = 0

    def lasting(self, rank: int, bad: bool) -> bool:
        self.rows = (self.rows + 1 if rank == self.rank else 1) if bad else 0
        self.rank = rank
        return self.rows == LASTING


@dataclass
class Stragglers:
    """Compares all ranks with every metrics row, and logs a slow rank once."""

    ranks: DistributedContext
    _times: int = TIMES
    _slow: Suspect = field(default_factory=Suspect)
    _waiting: Suspect = field(default_factory=Suspect)

    def look(self, row: Row) -> Row:
        """Figures to add to this rank's `row`; collective. Empty if there is only one rank."""
        if self.ranks.world_size == 1:
            return {}
        own = (piece_of_work(self.ranks.device, self._times), row["data_seconds"], row["seconds"])
        work, waits, seconds = zip(*self.ranks.gather(*own), strict=True)
        self._times = max(TIMES, int(SHARE * min(seconds) * self._times / min(work)))  # equal on every rank
        found = compare(work, waits, seconds=row["seconds"])
        if self._slow.lasting(found.slowest, found.slowdown >= SLOW):
            self._warn(found.slowest, f"takes {found.slowdown:.1f} times as long as the median rank for the same work")
        if self._waiting.lasting(found.waiting, found.data_share >= WAITING):
            self._warn(found.waiting, f"waits for data {found.data_share:.0%} of the time")
        return {
            "slowest_rank": found.slowest,
            "slowdown": found.slowdown,
            "waiting_rank": found.waiting,
            "data_share_of_waiting_rank": found.data_share,
        }

    def _warn(self, rank: int, what: str) -> None:
        if rank == self.ranks.rank:  # only this rank knows its host
            logger.warning("STRAGGLER: rank %d on %s %s. Every rank waits for it.", rank, socket.gethostname(), what)


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
