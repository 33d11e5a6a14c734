"""Runs the server: binds its address, loads the model, and serves until it is stopped."""

import logging
import os
import socket
from collections.abc import Callable

import uvicorn

from components.serving.batching_engine import BatchingEngine
from components.serving.http_server import ModelServer
from components.serving.live_model import LiveModel
from components.serving.server_limits import KEEP_ALIVE_SECONDS, KEY, STOP_SECONDS, ServerLimits
from components.serving.server_metrics import ServerMetrics
from mantis.errors import ConfigError

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAMES = ("localhost", "127.0.0.1", "[::1]")  # by which a browser reaches a server on the loopback
BACKLOG = 2048  # connections beyond the open requests that the system keeps


def bound_socket(host: str, port: int) -> socket.socket:
    """Bind the address of the server. Port 0: any free one.

    Raises:
        ConfigError: the address is taken or unknown, or everybody could ask because there is no key.
    """
    if host not in LOOPBACK and not os.environ.get(KEY):
        raise ConfigError(
            f"--host {host}: everybody who reaches this address could ask.",
            remedy=f"Set {KEY} to a key that clients have to send, or listen on 127.0.0.1.",
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error}.", remedy="Choose another port, e.g. --port 8001."
        ) from None
    return bound


def serve(model: LiveModel, limits: ServerLimits, bound: socket.socket, ready: Callable[[str], object]) -> None:
    """Serve a model until SIGINT or SIGTERM. `ready` gets the URL.

    Open answers end within STOP_SECONDS. New requests are not accepted meanwhile.
    """
    host, port = bound.getsockname()[:2]
    metrics = ServerMetrics()
    engine = BatchingEngine(model, most=limits.batch, observe=metrics.batch)
    key = os.environ.get(KEY, "")
    hosts = NAMES if host in LOOPBACK and not key else ("*",)
    server = ModelServer(engine=engine, limits=limits, metrics=metrics, key=key, hosts=hosts)
    try:
        bound.listen(BACKLOG)  # so that a reader of the URL can connect
        ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        uvicorn_server(server, stop_seconds=STOP_SECONDS).run(sockets=[bound])
    finally:
        engine.close()
        bound.close()


def uvicorn_server(server: ModelServer, *, stop_seconds: int) -> uvicorn.Server:
    """The HTTP server of a model. Open answers end within `stop_seconds` after a stop."""
    config = uvicorn.Config(
        server.app(),
        log_config=None,
        access_log=False,
        lifespan="off",
        backlog=BACKLOG,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=stop_seconds,
    )
    return uvicorn.Server(config)
