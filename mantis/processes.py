"""Processes that do not outlive the one that started them, and those of one machine that wait for each other."""

import ctypes
import fcntl
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1


def die_with_parent(sent: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send `sent` to this process when its parent dies (Linux only; elsewhere nothing happens).

    Without it, a launcher that is killed leaves ranks that go on training beside those of the next attempt.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), sent)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises SystemExit inside, so that what was started is ended in order; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def one_at_a_time(name: str, when_taken: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `name` of this user on this machine; it is free again when its process ends, however it ends.

    Where another process holds it, `when_taken` is called before this one waits: to say so, or to raise instead.
    """
    path = Path(tempfile.gettempdir()) / f"mantis-{os.getuid()}-{name}"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
