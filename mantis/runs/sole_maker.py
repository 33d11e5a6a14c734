"""One run at a time makes an artifact, because a maker deletes what it finds below the address.

Two heartbeats of a run lie below the artifact: `makers/waiting/<run>/heartbeat.json` while it waits for its turn, and
`makers/working/<run>/heartbeat.json` while it works. Stores need no locks for this, only listings without delay:

- The first of the waiting runs, by name, begins if no other run works.
- It writes that it works, and looks again. If another run has written the same, it steps back.
- A heartbeat that is older than DEAD seconds, by the clock of the store, is that of a killed run, and does not count.
- A run that starts again has the same name, so it does not wait for itself.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mantis.errors import StoreError
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

MAKERS = "makers"
BEAT = 5.0  # seconds between heartbeats
DEAD = 60.0  # seconds without one; a busy machine may miss several
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two looks at the others


def is_heartbeat(prefix: str, key: str) -> bool:
    """Whether the object at `key` is a heartbeat, and no part of the artifact at `prefix`."""
    return key.startswith(f"{prefix}/{MAKERS}/")


@contextmanager
def sole_maker(store: ObjectStore, prefix: str, run: str, is_made: Callable[[], bool]) -> Iterator[None]:
    """Keep other runs from making the artifact at `prefix` while the context lasts.

    First wait while another run makes it, until `is_made` returns True. The caller looks once more within the context,
    because the other run may have ended between two looks.

    Raises:
        StoreError: the store is away.
    """
    place = _Place(store=store, prefix=prefix, run=run)
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(place, stop), daemon=True)
    try:
        if place.taken(is_made):
            thread.start()
        yield
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        place.leave("working")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A run among those that want to make one artifact."""

    store: ObjectStore
    prefix: str
    run: str

    def say(self, state: str) -> None:
        self.store.put(self._key(state), b"{}")

    def leave(self, state: str) -> None:
        with suppress(StoreError):  # it dies by itself
            self.store.delete(self._key(state))

    def taken(self, is_made: Callable[[], bool]) -> bool:
        """Wait for the turn of this run, or return False once another run has made the artifact."""
        pause, seen = FIRST_PAUSE, ""
        try:
            while True:
                self.say("waiting")
                working, waiting = self._others()
                if not working and all(self.run < other for other in waiting):
                    self.say("working")
                    working, _ = self._others()
                    if not working:
                        return True
                    self.leave("working")
                if working and working[0] != seen:
                    seen = working[0]
                    address = self.store.uri(self.prefix)
                    logger.info("Run %s makes %s now. This run waits for the result", seen, address)
                time.sleep(pause * random.uniform(0.5, 1.5))
                if is_made():
                    return False
                pause = min(LONGEST_PAUSE, 1.5 * pause) if working else FIRST_PAUSE
        finally:
            self.leave("waiting")

    def _others(self) -> tuple[list[str], list[str]]:
        """Names of the other runs that work, and of those that wait. Heartbeats of killed runs are deleted."""
        entries = list(self.store.list(f"{self.prefix}/{MAKERS}"))
        now = max((entry.written for entry in entries), default=0.0)  # this run's own has just been written
        found: dict[str, list[str]] = {"working": [], "waiting": []}
        for entry in entries:
            state, run = entry.key.removeprefix(f"{self.prefix}/{MAKERS}/").split("/")[:2]
            if run == self.run:
                continue
            if now - entry.written > DEAD:
                self.store.delete(entry.key)
            else:
                found[state].append(run)
        return found["working"], found["waiting"]

    def _key(self, state: str) -> str:
        return f"{self.prefix}/{MAKERS}/{state}/{self.run}/heartbeat.json"


def _beat(place: _Place, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        try:
            place.say("working")
        except StoreError as error:
            logger.info("The heartbeat of this step was not written: %s", error)
