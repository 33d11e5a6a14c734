"""Run a server of http.server beside a test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import TypeVar

AnyServer = TypeVar("AnyServer", bound=ThreadingHTTPServer)


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
