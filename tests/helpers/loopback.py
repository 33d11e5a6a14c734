"""Servers on loopback: their ports, and those of http.server beside a test."""

import fcntl
import os
import random
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TextIO, TypeVar

AnyServer = TypeVar("AnyServer", bound=ThreadingHTTPServer)


PORTS = range(20_000, 30_000)  # Linux gives connections 32768 to 60999, and Kubernetes gives services 30000 to 32767
_locks: dict[int, TextIO] = {}  # port -> its locked file; open until this process ends


def free_port() -> int:
    """A port that no program of this machine listens on, for a server that starts soon, or for none.

    No other process of the tests gets the port before this one ends. A port of the kernel's choice would not do: the
    kernel may give it to any connection while the server still starts.
    """
    folder = Path(tempfile.gettempdir()) / f"mantis-{os.getuid()}-test-ports"
    folder.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if port not in _locks and _lock(port, folder):
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return port
    raise AssertionError(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


def _lock(port: int, folder: Path) -> bool:
    """Lock a port for this process, and for the children that it forks; False if another process holds it."""
    file = (folder / str(port)).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _locks[port] = file
    return True


@contextmanager
def running(server: AnyServer, *, poll_seconds: float = 0.5) -> Iterator[AnyServer]:
    """Serve from a thread until the block ends. Ending takes up to `poll_seconds`."""
    thread = threading.Thread(target=server.serve_forever, args=(poll_seconds,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
