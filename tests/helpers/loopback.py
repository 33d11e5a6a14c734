"""Servers on loopback: their ports, and those of http.server beside a test."""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import ThreadingHTTPServer
from typing import TypeVar

from mantis.processes import one_at_a_time

AnyServer = TypeVar("AnyServer", bound=ThreadingHTTPServer)

PORTS = range(20_000, 30_000)  # Linux gives connections 32768 to 60999, and Kubernetes gives services 30000 to 32767
_locks = ExitStack()  # of the ports of this process; nothing closes it before the process ends


def free_port() -> int:
    """A port that no program of this machine listens on, for a server that starts soon, or for none.

    No other process of the tests gets the port before this one ends. A port of the kernel's choice would not do: the
    kernel may give it to any connection while the server still starts.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with suppress(OSError):
            _locks.enter_context(one_at_a_time(f"{port}.test-port", _refuse))
            socket.create_server(("127.0.0.1", port)).close()
            return port
    raise AssertionError(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


def _refuse() -> None:
    raise BlockingIOError


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
