"""End processes, alone or with their parent, keep their memory, and lock processes against each other."""

import ctypes
import fcntl
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

PR_SET_PDEATHSIG = 1
# Numbers and bounds of glibc's mallopt: malloc.h, and HEAP_MAX_SIZE in malloc/arena.c.
M_TRIM_THRESHOLD, MOST_TRIM = -1, 2**31 - 1
M_MMAP_THRESHOLD, MOST_MMAP = -3, 32 * 2**20


def end_process(code: int) -> NoReturn:
    """End this process at once: its streams are flushed, its threads and Python's own finalization do not run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def die_with_parent(sent: signal.Signals = signal.SIGTERM) -> None:
    """Let the kernel send `sent` to this process when its parent dies. It has no effect except on Linux.

    Without it, the ranks of a killed launcher would keep training beside the ranks of the next attempt.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
    if os.getppid() != parent:  # the parent died before this call
        os.kill(os.getpid(), sent)


def die_with_process(pid: int, sent: signal.Signals = signal.SIGTERM) -> None:
    """Send `sent` to this process when the process `pid` ends, from a thread. It has no effect except on Linux.

    It serves processes whose parent is a shell, which outlives the process that started it.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        os.kill(os.getpid(), sent)
        return

    def watch() -> None:
        select.select([watched], [], [])  # the descriptor can be read when the process has ended
        os.kill(os.getpid(), sent)

    threading.Thread(target=watch, name="die-with-process", daemon=True).start()


def keep_freed_memory() -> None:
    """Let this process use freed memory again, up to 2 GiB of it. It has no effect without glibc.

    glibc gives large blocks back to the kernel at once, and the kernel clears every page that it lends again. A
    training step on CPUs frees its activations and allocates as many, so those pages take a twentieth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MOST_MMAP)
        mallopt(M_TRIM_THRESHOLD, MOST_TRIM)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into SystemExit inside the block, so that child processes end in order; main thread only."""
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
    """Hold the lock `name` of this user on this machine. The lock is released when its process ends, in any way.

    If another process holds it, `when_taken` runs before the wait. It may report the wait, or raise.
    """
    path = Path(tempfile.gettempdir()) / f"mantis-{os.getuid()}-{name}"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
