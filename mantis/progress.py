"""Progress of long work: lines for logs, and small files that `mantis run` draws bars from."""

import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from mantis.logging import STEP

logger = logging.getLogger(__name__)

PROGRESS_DIR = "MANTIS_PROGRESS_DIR"
LINE_SECONDS = 10.0
LAST_SECONDS = 1.0
FILE_SECONDS = 0.2
WINDOW_SECONDS = 60.0  # the time left follows from the speed within this time, so a slow start is soon forgotten
WINDOW_STEP = 1.0  # seconds between two places that are remembered

T = TypeVar("T")


def publish(**state: object) -> None:
    """Replace the state file of this step, if `mantis run` draws it (MANTIS_PROGRESS_DIR is set)."""
    folder, step = os.environ.get(PROGRESS_DIR), os.environ.get(STEP)
    if not folder or not step:
        return
    path = Path(folder) / f"{step}.json"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(state))
        temporary.replace(path)
    except FileNotFoundError:
        pass  # `mantis run` has ended and deleted the folder; the work continues


class Progress:
    """Counts `done` of `total`, publishes the state five times a second, and logs a line every ten seconds.

    It logs a last line at the end of work that took `last_after` seconds or more.
    """

    def __init__(
        self, *, label: str, total: int | None, unit: str, done: int = 0, last_after: float = LAST_SECONDS
    ) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._last_after = last_after
        self._first = done
        self._start = self._line = time.monotonic()
        self._file = 0.0
        self._places = deque([(self._start, done)])
        self._show("", ends=False)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more; `note` stands behind the numbers, e.g. the loss."""
        self.done += amount
        self._remember()
        self._show(note, ends=amount > 0 and self.done == self.total)

    def _show(self, note: str, *, ends: bool) -> None:
        now = time.monotonic()
        if now - self._file >= FILE_SECONDS or ends:
            self._file = now
            publish(
                state="running",
                label=self.label,
                done=self.done,
                total=self.total,
                unit=self.unit,
                left=self.seconds_left,
                note=note,
            )
        if now - self._line >= LINE_SECONDS or (ends and now - self._start >= self._last_after):
            self._line = now
            logger.info("%s: %s%s", self.label, self._figures(now), f"  {note}" if note else "")

    def _figures(self, now: float) -> str:
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        figures = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        figures += f" {self.unit}  {rate:,.1f} {self.unit}/s"
        left = self.seconds_left
        return figures if left is None else f"{figures}  {clock_text(left)} left"

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `total`, at the speed of the last minute; None if the total or the speed is not known."""
        now, (then, before) = time.monotonic(), self._places[0]
        if self.total is None or self.done <= before or now <= then:
            return None
        return (self.total - self.done) * (now - then) / (self.done - before)

    def _remember(self) -> None:
        now = time.monotonic()
        if now - self._places[-1][0] >= WINDOW_STEP:
            self._places.append((now, self.done))
            while now - self._places[1][0] > WINDOW_SECONDS:
                self._places.popleft()


def clock_text(seconds: float) -> str:
    """Format seconds as 0:41, 20:26 or 14:05:09."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def seconds_of(text: str) -> float:
    """The seconds that `clock_text` formatted as `text`."""
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return float(seconds)


def three_digits(value: float) -> str:
    """Format a rate with three significant digits: 0.0421, 2.06, 20.6, 173, 12,300."""
    if abs(value) >= 99.95:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}"


def track(items: Iterable[T], *, label: str, total: int | None, unit: str) -> Iterator[T]:
    """Yield `items` and count them."""
    progress = Progress(label=label, total=total, unit=unit)
    for item in items:
        yield item
        progress.advance()
