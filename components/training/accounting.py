"""Where the wall time goes, by cause; the causes add up to the wall time."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from enum import StrEnum

from components.core.errors import StoreError
from components.core.progress import say
from components.core.store import ObjectStore

HEARTBEAT = "heartbeat.json"
HEARTBEAT_SECONDS = 2.0
QUEUED_AT = "MANTIS_QUEUED_AT"  # time.time() at which a launcher handed the job to a queue
LAUNCHED_AT = "MANTIS_LAUNCHED_AT"  # time.time() at which torchrun was started


class Cause(StrEnum):
    """What a second was spent on."""

    QUEUE = "queue"  # from the job's submission until its ranks were started
    START = "start"  # imports, meeting the other ranks, building the model
    RESUME = "resume"  # fetching, verifying and loading a checkpoint
    DATA = "data"  # waiting for the next micro-steps
    STEP = "step"  # forward, backward, collectives, update: what training is for
    SAVE = "save"  # waiting for checkpoints
    REWORK = "rework"  # what an earlier attempt spent after its last checkpoint
    FINISH = "finish"  # probe, configuration, last uploads
    OTHER = "other"  # logging, and what is between the others


def beginning() -> tuple[float, float]:
    """The time.monotonic() at which this training was asked for, and the seconds that it then queued."""
    now = time.time()
    launched = min(now, float(os.environ.get(LAUNCHED_AT, now)))
    queued = max(0.0, launched - float(os.environ.get(QUEUED_AT, launched)))
    return time.monotonic() - (now - launched) - queued, queued


class Clock:
    """Time since `began` (a time.monotonic()) by cause, on top of what earlier attempts `spent`."""

    def __init__(self, began: float, spent: Mapping[str, float] | None = None) -> None:
        self._began = began
        self._earlier = dict(spent or {})
        self._seconds = dict.fromkeys(Cause, 0.0)

    @contextmanager
    def spend(self, cause: Cause) -> Iterator[None]:
        """Count the time inside for `cause`; not nested."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(cause, time.monotonic() - start)

    def add(self, cause: Cause, seconds: float) -> None:
        """Count `seconds` of this attempt for `cause`."""
        self._seconds[cause] += seconds

    def inherit(self, spent: Mapping[str, float], *, lost: float) -> None:
        """Add an earlier attempt's seconds by cause, and those that it `lost` after its last checkpoint."""
        self._earlier = dict(spent)
        self._earlier[Cause.REWORK] = self._earlier.get(Cause.REWORK, 0.0) + max(0.0, lost)

    def seconds(self) -> dict[str, float]:
        """Seconds by cause over all attempts, up to now; they sum to the wall time in which training ran."""
        accounted = sum(self._seconds.values())
        now = {cause: self._seconds[cause] for cause in Cause}
        now[Cause.OTHER] += time.monotonic() - self._began - accounted
        return {cause.value: now[cause] + self._earlier.get(cause, 0.0) for cause in Cause}

    def of_this_attempt(self) -> float:
        """Seconds of this attempt so far, whatever for."""
        return time.monotonic() - self._began


def goodput(seconds: Mapping[str, float]) -> float:
    """Share of the wall time, given by cause, that was spent on steps that counted."""
    return seconds[Cause.STEP] / max(1e-9, sum(seconds.values()))


class Heartbeat:
    """Leaves in the store how long training has run, so that the next attempt knows what a kill has cost."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._key = store, f"{prefix}/{HEARTBEAT}"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._sent: Future[None] | None = None
        self._next = 0.0

    def last(self) -> float:
        """Seconds that all attempts before this one have run; 0 for the first."""
        if self._store.stat(self._key) is None:
            return 0.0
        return float(json.loads(self._store.get(self._key))["seconds"])

    def beat(self, seconds: float) -> None:
        """Write `seconds` in the background, every HEARTBEAT_SECONDS at most."""
        now = time.monotonic()
        if now >= self._next and (self._sent is None or self._sent.done()):
            self._next = now + HEARTBEAT_SECONDS
            self._sent = self._pool.submit(self._put, seconds)

    def close(self) -> None:
        """Training is over: nothing can be lost any more."""
        self._pool.shutdown()
        self._store.delete(self._key)

    def _put(self, seconds: float) -> None:
        try:
            self._store.put(self._key, json.dumps({"seconds": seconds}).encode())
        except StoreError as error:  # only the accounting of a later attempt would suffer
            say(f"heartbeat: {error}")
