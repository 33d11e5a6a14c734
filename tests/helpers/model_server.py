"""Serves a model in threads of the test, on a free port."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.serving.batching_engine import AnsweredBatch, BatchingEngine
from components.serving.http_server import ModelServer
from components.serving.live_model import LiveModel
from components.serving.run_server import bound_socket, uvicorn_server
from components.serving.server_limits import ServerLimits
from components.serving.server_metrics import ServerMetrics
from tests.helpers.waiting import HANG_SECONDS


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running server, and the batches that its model answered."""

    url: str
    server: ModelServer
    batches: list[AnsweredBatch]


@contextmanager
def model_server(model: LiveModel, *, key: str = "", **limits: Any) -> Iterator[Served]:
    """Serve `model` until the context ends."""
    batches: list[AnsweredBatch] = []
    bounds, metrics = ServerLimits(**limits), ServerMetrics()

    def observe(batch: AnsweredBatch) -> None:
        batches.append(batch)
        metrics.batch(batch)

    engine = BatchingEngine(model, most=bounds.batch, observe=observe)
    server = ModelServer(engine=engine, limits=bounds, metrics=metrics, key=key)
    bound = bound_socket("127.0.0.1", 0)
    running = uvicorn_server(server, stop_seconds=5)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    bound.listen()  # a test may connect before the thread has begun
    thread.start()
    try:
        yield Served(url=f"http://127.0.0.1:{bound.getsockname()[1]}", server=server, batches=batches)
    finally:
        running.should_exit = True
        thread.join(HANG_SECONDS)
        engine.close()
        bound.close()
