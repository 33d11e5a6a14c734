"""Servers on loopback: their ports, and those of http.server beside a test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import TypeVar

AnyServer = TypeVar("AnyServer", bound=ThreadingHTTPServer)


def free_port() -> int:
    """A port that no program of this machine listens on, for a server that starts soon."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


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
