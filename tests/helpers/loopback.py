"""Servers on loopback: their ports, and those of http.server beside a test."""

import random
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

from mantis.processes import one_at_a_time
from tests.helpers.waiting import HANG_SECONDS

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


def until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path, authority: Path | None = None) -> None:
    """Wait until MLflow at `url` serves; AssertionError with its log if it ends, or does not come."""
    trusting = ssl.create_default_context(cafile=str(authority)) if authority else None
    until = time.monotonic() + HANG_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{url}/health", timeout=4, context=trusting).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"no MLflow within {HANG_SECONDS:.0f} s:\n{log.read_text()}")
