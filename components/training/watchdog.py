"""Ends a job in which a rank no longer answers, and says which one.

Collectives wait for everybody: when one rank stops, all of them do, and the collective's own timeout can only say that
something is late. So every rank tells how far it got before each wait (a TCPStore key, sent by a thread), and
whoever has waited too long reads them: the rank that is behind all others is the one.

A process that stands still as a whole cannot do that, and where all of a job's do, nobody says anything. So every rank
also touches a file, where the platform names a folder for it, and the platform ends a pod with an old one.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # documented, not exported

from components.core.errors import TrainingError
from components.training.failures import StalledError

LOOK_SECONDS = 0.5
ALIVE = "MANTIS_ALIVE"  # the folder that the runtime's livenessProbe looks into (manifests/base/runtime.yaml)


@dataclass(frozen=True, order=True)
class Mark:
    """How far a rank is: waits begun in this training."""

    count: int
    step: int
    stage: str


class Watchdog:
    """One rank's. Armed by the first `mark`; `pause` where waiting is right (saving, the end)."""

    def __init__(
        self, store: Store, *, rank: int, world_size: int, seconds: float, end: Callable[[TrainingError], object]
    ) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size
        self._seconds, self._end = seconds, end
        self._mark = Mark(0, 0, "start")
        self._since: float | None = None
        folder = os.environ.get(ALIVE)
        self._alive = Path(folder) / f"rank-{rank}" if folder else None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)
        self._thread.start()

    def mark(self, step: int, stage: str) -> None:
        """This rank is at `stage` of `step` (from 1), which may wait for others."""
        self._mark = Mark(self._mark.count + 1, step, stage)
        self._since = time.monotonic()

    def pause(self) -> None:
        """Waiting is right until the next mark."""
        self._since = None

    def close(self) -> None:
        """Training is over."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            self._watch()
        finally:
            if self._alive:  # nobody touches it from here on, which is no standstill
                self._alive.unlink(missing_ok=True)

    def _watch(self) -> None:
        told = -1
        while not self._closed.wait(LOOK_SECONDS):
            mark, since = self._mark, self._since
            if self._alive:
                self._alive.parent.mkdir(exist_ok=True)
                self._alive.touch()
            try:
                if mark.count != told:
                    self._store.set(_key(self._rank), f"{mark.count} {mark.step} {mark.stage}")
                    told = mark.count
                if since is not None and time.monotonic() - since > self._seconds:
                    self._end(self._late())
                    return
            except RuntimeError:  # the store is gone: torchrun is ending this job already
                return

    def _late(self) -> StalledError:
        marks = [self._read(rank) for rank in range(self._world_size)]
        return late_error(marks, seconds=self._seconds)

    def _read(self, rank: int) -> Mark:
        if not self._store.check([_key(rank)]):
            return Mark(0, 0, "start")
        count, step, stage = self._store.get(_key(rank)).decode().split(maxsplit=2)
        return Mark(int(count), int(step), stage)


def late_error(marks: Sequence[Mark], *, seconds: float) -> StalledError:
    """Names the rank that is behind the others; `marks` by rank."""
    last, first = min(marks), max(marks)
    behind = [rank for rank, mark in enumerate(marks) if mark.count == last.count]
    if last.count == first.count:
        who = f"All {len(marks)} ranks wait in step {last.step} ({last.stage})"
    else:
        names = f"Rank {behind[0]} does" if len(behind) == 1 else f"Ranks {', '.join(map(str, behind))} do"
        who = f"{names} not answer: last seen in step {last.step} ({last.stage}), others are in step {first.step}"
        who += f" ({first.stage})"
    return StalledError(
        f"{who}. Nothing has moved for {seconds:.0f} s.",
        remedy="Look at that rank's machine; where a step really takes so long, raise training.hang_timeout_seconds. "
        "The same command goes on from the last committed checkpoint.",
    )


def meeting_store() -> Store:
    """A connection of this process to the store in which torchrun's ranks met, of the watchdog's own."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"mantis-{restart}", TCPStore(address, port, timeout=timedelta(seconds=30)))


def _key(rank: int) -> str:
    return f"mark/{rank}"
