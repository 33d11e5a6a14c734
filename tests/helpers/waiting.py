"""Waiting for what has to come, and the longest time that a test waits for it."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

HANG_SECONDS = 1500.0
"""A wait of this length counts as a hang. A busy machine may take many times as long as an idle one.

pytest ends a test later (`timeout` in pyproject.toml), so that the error of the wait itself is seen.
"""


def until(what: str, ready: Callable[[], Found], seconds: float = HANG_SECONDS, *, pause: float = 0.02) -> Found:
    """Wait for a true result of `ready`, and return it; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < end, f"{what}: not after {seconds:.0f} s"
        time.sleep(pause)
    return found
