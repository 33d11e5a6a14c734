"""Ends a job in which a rank no longer answers, and names that rank.

A collective waits for all ranks. When one rank stops, all stop, and the collective's timeout does not name the culprit.
So a thread of every rank stores its position in a TCPStore key before each wait. A rank that has waited too long reads
the positions of all ranks: the one that is behind the others is the culprit.

A process that is frozen as a whole cannot report anything. So every rank also touches a file, if the platform names a
folder for it. The platform ends a pod whose file is old.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # documented, not exported

from components.training.monitoring.failures import StalledError

LOOK_SECONDS = 0.5
ALIVE = "MANTIS_ALIVE"  # the folder that the runtime's livenessProbe looks into (manifests/base/runtime.yaml)


@dataclass(frozen=True, order=True)
class Mark:
    """Position of a rank: `count` waits begun so far, the step (from 1), and the part of the step."""

    count: int
    step: int
    stage: str


class Watchdog:
    """Watches one rank. The first `mark` arms it; `pause` disarms it for long waits (saving, the end).

    Args:
        store: the store in which the ranks share their positions.
        rank: this rank.
        world_size: number of ranks.
        seconds: a wait that is longer ends the training.
        end: ends this process with an error.
    """

    def __init__(
        self, store: Store, *, rank: int, world_size: int, seconds: float, end: Callable[[StalledError], object]
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
        """This rank enters `stage` of step `step` (from 1), in which it may wait for other ranks."""
        self._mark = Mark(self._mark.count + 1, step, stage)
        self._since = time.monotonic()

    def pause(self) -> None:
        """Allow any wait until the next mark."""
        self._since = None

    def close(self) -> None:
        """Stop watching: training is over."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            self._watch()
        finally:
            if self._alive:  # nothing touches it from here on, and an old file would end the pod
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
            except RuntimeError:  # the store is gone: torchrun already ends this job
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
    """The error that names the ranks behind the others; `marks` in the order of ranks, `seconds` without a change."""
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
        remedy="Look at that rank's machine. If a step really takes that long, raise training.hang_timeout_seconds. "
        "The same command goes on from the last committed checkpoint.",
    )


def meeting_store() -> Store:
    """The watchdog's own connection to the store in which torchrun's ranks meet."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"mantis-{restart}", TCPStore(address, port, timeout=timedelta(seconds=30)))


def _key(rank: int) -> str:
    return f"mark/{rank}"
