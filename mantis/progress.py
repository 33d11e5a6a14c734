"""Progress of long work: lines for logs, and small files that `mantis run` draws bars from."""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from mantis.logging import STEP

logger = logging.getLogger(__name__)

PROGRESS_DIR = "MANTIS_PROGRESS_DIR"
LINE_SECONDS = 10.0
LAST_SECONDS = 1.0
FILE_SECONDS = 0.2

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

    It logs a last line at the end of work that took a second or more.
    """

    def __init__(self, *, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._first = done
        self._start = self._line = time.monotonic()
        self._file = 0.0
        self._show("", ends=False)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more; `note` stands behind the numbers, e.g. the loss."""
        self.done += amount
        self._show(note, ends=amount > 0 and self.done == self.total)

    def _show(self, note: str, *, ends: bool) -> None:
        now = time.monotonic()
        if now - self._file >= FILE_SECONDS or ends:
            self._file = now
            publish(state="running", label=self.label, done=self.done, total=self.total, unit=self.unit, note=note)
        if now - self._line >= LINE_SECONDS or (ends and now - self._start >= LAST_SECONDS):
            self._line = now
            logger.info("%s: %s%s", self.label, self._figures(now), f"  {note}" if note else "")

    def _figures(self, now: float) -> str:
        rate = (self.done - self._first) / max(now - self._start, 1e-9)
        figures = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        figures += f" {self.unit}  {rate:,.1f} {self.unit}/s"
        if self.total is not None and rate > 0:
            left = int((self.total - self.done) / rate)
            figures += f"  {left // 60}:{left % 60:02d} left"
        return figures


def track(items: Iterable[T], *, label: str, total: int | None, unit: str) -> Iterator[T]:
    """Yield `items` and count them."""
    progress = Progress(label=label, total=total, unit=unit)
    for item in items:
        yield item
        progress.advance()
