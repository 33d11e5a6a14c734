"""An OpenAI-compatible server on this machine that answers by a fixed rule, and fails now and then."""

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mantis.hashing import sha256_bytes
from tests.helpers.loopback import running

FAILURES = ("429", "500", "closed", "cut off", "no json")


@dataclass
class OpenAIServer:
    """What the server does and what it saw. `failures` is the share of requests that fail first."""

    url: str = ""
    failures: float = 0.0
    seconds: float = 0.0  # of each answer
    refuse: Callable[[str], int] = lambda _: 0  # HTTP status of a refusal, by the question's text
    retry_after: str = "0"  # seconds, with status 429
    key: str = ""  # if set, every other key gets status 401
    answered: Counter[str] = field(default_factory=Counter)  # by the request's body
    failed: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    rng: random.Random = field(default_factory=lambda: random.Random(0))


def answer_to(body: dict[str, Any]) -> str:
    """A letter or a colour that depends on text and images."""
    number = int(sha256_bytes(json.dumps(body["messages"], sort_keys=True).encode())[:8], 16)
    return ("red", "blue", "green", "dark grey", "I do not know")[number % 5]


def message_to(body: dict[str, Any]) -> dict[str, Any]:
    """The message of a response."""
    return {"role": "assistant", "content": answer_to(body)}


@contextmanager
def openai_server(**settings: Any) -> Iterator[OpenAIServer]:
    """Serve on a free port of the loopback address."""
    state = OpenAIServer(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    with running(server, poll_seconds=0.01):
        yield state


def _handler(state: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Keep the tests' output clean."""

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with state.lock:
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
                fails = state.rng.choice(FAILURES) if state.rng.random() < state.failures else ""
            try:
                time.sleep(state.seconds)
                self._serve(raw, fails)
            finally:
                with state.lock:
                    state.at_once -= 1

        def _serve(self, raw: bytes, fails: str) -> None:
            body = json.loads(raw)
            state.bodies.append(body)
            text = " ".join(part.get("text", "") for part in body["messages"][0]["content"])
            if self.path != "/v1/chat/completions":
                return self._send(404, {"error": {"message": f"no path {self.path}"}})
            if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
                wrong = str(self.headers.get("Authorization")).removeprefix("Bearer ")
                return self._send(401, {"error": {"message": f"Incorrect API key provided: {wrong}"}})
            if (status := state.refuse(text)) != 0:
                wait = {"Retry-After": state.retry_after} if status == 429 else {}
                return self._send(status, {"error": {"message": "This content is not allowed."}}, wait)
            if fails:
                state.failed[fails] += 1
                return self._fail(fails)
            state.answered[sha256_bytes(raw)] += 1
            return self._send(200, {"choices": [{"message": message_to(body)}]})

        def _fail(self, kind: str) -> None:
            if kind == "closed":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            elif kind == "cut off":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
            elif kind == "no json":
                self._send(200, "<html>busy</html>")
            else:
                self._send(int(kind), {"error": "busy"}, {"Retry-After": state.retry_after} if kind == "429" else {})

        def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler
