"""Wall time of a training by cause: every second has one cause, so the causes sum to the wall time."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from mantis.errors import NotFoundError, StoreError
from mantis.schema_versions import Form, versioned, without_version
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

HEARTBEAT = "heartbeat.json"
HEARTBEAT_SECONDS = 2.0
QUEUED_AT = "MANTIS_QUEUED_AT"  # time.time() when a launcher queued the job; the same for all attempts of a job
LAUNCHED_AT = "MANTIS_LAUNCHED_AT"  # time.time() when torchrun was started; not set in a job


class Cause(StrEnum):
    """What training spends a second on."""

    QUEUE = "queue"  # from the job's submission until its ranks were started
    START = "start"  # imports, meeting the other ranks, building the model
    RESUME = "resume"  # fetching, verifying and loading a checkpoint
    DATA = "data"  # waiting for the next micro-steps
    STEP = "step"  # forward, backward, collectives, update
    EVALUATE = "evaluate"  # the held-out loss
    SAVE = "save"  # waiting for checkpoints
    REWORK = "rework"  # time of earlier attempts after their last checkpoint, which is lost
    FINISH = "finish"  # probe, configuration, last uploads
    OTHER = "other"  # logging, and everything between the other causes


def beginning() -> tuple[float, float]:
    """The time.monotonic() at which the user asked for this training, and the seconds that it then spent in a queue."""
    now = time.time()
    launched = min(now, float(os.environ.get(LAUNCHED_AT, now)))
    queued = max(0.0, launched - float(os.environ.get(QUEUED_AT, launched)))
    return time.monotonic() - (now - launched) - queued, queued


class GoodputClock:
    """Seconds by cause since `began` (a time.monotonic()), on top of the seconds that earlier attempts `spent`.

    Time that no cause claims counts as `other`.
    """

    def __init__(self, began: float, spent: Mapping[str, float] | None = None) -> None:
        self._began = self._since = began
        self._earlier = dict(spent or {})
        self._seconds = dict.fromkeys(Cause, 0.0)
        self._cause = Cause.OTHER

    def enter(self, cause: Cause) -> None:
        """Count the time from now on for `cause`, until the next call."""
        now = time.monotonic()
        if self._cause is not Cause.OTHER:
            self.add(self._cause, now - self._since)
        self._cause, self._since = cause, now

    @contextmanager
    def spend(self, cause: Cause) -> Iterator[None]:
        """Count the time inside for `cause`, and then go back to the cause before."""
        before = self._cause
        self.enter(cause)
        try:
            yield
        finally:
            self.enter(before)

    def add(self, cause: Cause, seconds: float) -> None:
        """Count `seconds` of this attempt for `cause`."""
        self._seconds[cause] += seconds

    def inherit(self, spent: Mapping[str, float], *, ran: float, queued: float) -> None:
        """Add the seconds of earlier attempts. Time that the checkpoint does not know was in the queue, or is lost.

        Args:
            spent: seconds by cause up to the checkpoint that this attempt resumes from.
            ran: seconds that all earlier attempts ran until their end, time in the queue included.
            queued: seconds of `ran` that they spent in the queue.
        """
        waited = max(0.0, queued - spent.get(Cause.QUEUE, 0.0))
        lost = max(0.0, ran - sum(spent.values()) - waited)
        self._earlier = dict(spent)
        self._earlier[Cause.QUEUE] = self._earlier.get(Cause.QUEUE, 0.0) + waited
        self._earlier[Cause.REWORK] = self._earlier.get(Cause.REWORK, 0.0) + lost

    def seconds(self) -> dict[str, float]:
        """Seconds by cause over all attempts, up to now; they sum to the wall time of all attempts."""
        self.enter(self._cause)
        accounted = sum(self._seconds.values())
        now = {cause: self._seconds[cause] for cause in Cause}
        now[Cause.OTHER] += time.monotonic() - self._began - accounted
        return {cause.value: now[cause] + self._earlier.get(cause, 0.0) for cause in Cause}


def goodput(seconds: Mapping[str, float]) -> float:
    """Share of the wall time (seconds by cause) that training spent on steps which a later attempt did not repeat."""
    return seconds[Cause.STEP] / max(1e-9, sum(seconds.values()))


@dataclass(frozen=True)
class HeartbeatTime:
    """The last heartbeat: seconds that all attempts ran and queued, and the job's MANTIS_QUEUED_AT."""

    seconds: float = 0.0
    queued: float = 0.0
    job: str = ""


class Heartbeat:
    """Stores how long training has run, so that the next attempt knows how much time a kill lost."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._key = store, f"{prefix}/{HEARTBEAT}"
        self._job = os.environ.get(QUEUED_AT, "")
        self.last = _last_beat(store, self._key)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._sent: Future[None] | None = None
        self._next = 0.0

    def queued_once(self, began: float, queued: float) -> tuple[float, float]:
        """`began` and `queued` of `beginning`; without the queue if an earlier attempt of the same job counted it."""
        again = self._job and self.last.job == self._job
        return (began + queued, 0.0) if again else (began, queued)

    def beat(self, seconds: Mapping[str, float]) -> None:
        """Store the `seconds` by cause in the background, at most every HEARTBEAT_SECONDS."""
        now = time.monotonic()
        if now >= self._next and (self._sent is None or self._sent.done()):
            self._next = now + HEARTBEAT_SECONDS
            beat = HeartbeatTime(sum(seconds.values()), seconds[Cause.QUEUE], self._job)
            self._sent = self._pool.submit(self._put, beat)

    def close(self) -> None:
        """Delete the heartbeat: training is over, so no time can be lost."""
        self._pool.shutdown()
        self._store.delete(self._key)

    def _put(self, beat: HeartbeatTime) -> None:
        try:
            self._store.put(self._key, json.dumps(versioned(Form.HEARTBEAT, vars(beat))).encode())
        except StoreError as error:  # only the goodput of a later attempt would be wrong
            logger.warning("The store did not take the heartbeat: %s", error)


def seconds_so_far(store: ObjectStore, prefix: str) -> float:
    """Seconds that all attempts ran until the last heartbeat; 0 before the first attempt and after the end."""
    return _last_beat(store, f"{prefix}/{HEARTBEAT}").seconds


def _last_beat(store: ObjectStore, key: str) -> HeartbeatTime:
    try:
        return HeartbeatTime(**without_version(Form.HEARTBEAT, json.loads(store.get(key)), store.uri(key)))
    except NotFoundError:
        return HeartbeatTime()
