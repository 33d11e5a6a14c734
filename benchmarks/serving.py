"""Ask a server with 16 clients at a time: ours against itself with one client, and against `transformers serve`."""

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.evaluation import random_demo_model, short_questions
from benchmarks.rows import Row
from mantis.generation.chat_messages import data_uri, openai_request
from mantis.generation.decoding import Decoding

logger = logging.getLogger(__name__)

REPEATS = 3
REQUESTS = {False: 64, True: 256}
CLIENTS, NEW_TOKENS = 16, 32
START_SECONDS = 300.0
CONCURRENCY_GOAL, PEER_GOAL = ">=3", ">=1"


def concurrency(full: bool) -> Row:
    """Measure answers per second of `mantis model serve` with 16 clients. The peer is the same server with one."""
    with _model() as folder, _ours(folder) as url:
        bodies = _bodies(str(folder), full)
        alone, together = _ask(url, bodies, 1), _ask(url, bodies, CLIENTS)  # warm-up
        times: dict[str, list[float]] = {"peer": [], "ours": []}
        for repeat in range(REPEATS):
            logger.info("serving.concurrency: %d of %d", repeat, REPEATS)
            for name, clients in (("peer", 1), ("ours", CLIENTS)):
                times[name].append(_seconds(url, bodies, clients))
    what = "the same server, one request at a time"
    return Row.of_rates("serving.concurrency", len(bodies), times, CONCURRENCY_GOAL, _details(what, alone, together))


def transformers(full: bool) -> Row:
    """Measure answers per second with 16 clients. The peer is `transformers serve` on the same folder."""
    with _model() as folder, ExitStack() as servers:
        urls = {"peer": servers.enter_context(_peer(folder)), "ours": servers.enter_context(_ours(folder))}
        bodies = _bodies(str(folder), full)
        answers = {name: _ask(url, bodies, CLIENTS) for name, url in urls.items()}  # warm-up
        times: dict[str, list[float]] = {name: [] for name in urls}
        for repeat in range(REPEATS):
            logger.info("serving.transformers: %d of %d", repeat, REPEATS)
            for name, url in urls.items():
                times[name].append(_seconds(url, bodies, CLIENTS))
    what = f"transformers serve, {CLIENTS} requests at a time, same weights"
    details = _details(what, answers["peer"], answers["ours"])
    return Row.of_rates("serving.transformers", len(bodies), times, PEER_GOAL, details)


def _details(peer: str, theirs: Sequence[str], ours: Sequence[str]) -> dict[str, Any]:
    if len(set(ours)) < 10:
        raise RuntimeError(f"only {len(set(ours))} distinct answers: they do not depend on the images")
    return {
        "peer": peer,
        "clients": CLIENTS,
        "new_tokens": NEW_TOKENS,
        "answers_that_differ": sum(mine != other for mine, other in zip(ours, theirs, strict=True)),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _bodies(model: str, full: bool) -> list[bytes]:
    decoding = Decoding(max_new_tokens=NEW_TOKENS)
    questions = short_questions(REQUESTS[full])
    return [json.dumps(openai_request(each, decoding, model=model, link=data_uri)).encode() for each in questions]


def _seconds(url: str, bodies: Sequence[bytes], clients: int) -> float:
    began = time.perf_counter()
    _ask(url, bodies, clients)
    return time.perf_counter() - began


def _ask(url: str, bodies: Sequence[bytes], clients: int) -> list[str]:
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda body: _answer(url, body), bodies))


def _answer(url: str, body: bytes) -> str:
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return str(json.load(response)["choices"][0]["message"]["content"]).strip()


@contextmanager
def _model() -> Iterator[Path]:
    """The demo's model with random weights, in a folder."""
    model, processor = random_demo_model()
    with tempfile.TemporaryDirectory(prefix="mantis-serving-") as name:
        model.save_pretrained(name)
        processor.save(Path(name))
        yield Path(name)


@contextmanager
def _ours(folder: Path) -> Iterator[str]:
    port = _free_port()
    words = ["-m", "pipelines.cli", "model", "serve", str(folder), "--max-tokens", str(NEW_TOKENS)]
    with _server([*words, "--port", str(port), "--max-batch", str(CLIENTS)], port) as url:
        yield url


@contextmanager
def _peer(folder: Path) -> Iterator[str]:
    port = _free_port()
    words = ["-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu", "--dtype", "float32"]
    with _server([*words, "--host", "127.0.0.1", "--port", str(port)], port) as url:
        yield url


@contextmanager
def _server(words: Sequence[str], port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
        try:
            _wait(process, f"{url}/health")
            yield url
        except BaseException:
            log.seek(0)
            logger.error("The server said: %s", log.read()[-2000:].decode(errors="replace"))
            raise
        finally:
            process.terminate()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", address: str) -> None:
    limit = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < limit:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{address} does not answer; exit code {process.poll()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
