"""Sends JSON objects to a server of the cluster, from a thread that never holds up a training."""

import json
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from typing import Any

import urllib3

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0  # for a server to answer
FLUSH_SECONDS = 5.0  # for the last objects at the end of a training
MOST_WAITING = 32  # objects; more are dropped while a server does not answer


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A server that takes objects.

    Args:
        name: what a log line calls it.
        url: the address of POST.
        token: the file with the bearer token. The kubelet replaces it while a training runs.
        authority: the PEM file of the authority that signed the server's certificate.
    """

    name: str
    url: str
    token: Path
    authority: Path


class ObjectSender:
    """Posts objects in their order. A problem is logged once, and costs the training nothing."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._waiting: Queue[Mapping[str, Any] | threading.Event] = Queue(MOST_WAITING)
        self._away = self._said = False
        threading.Thread(target=self._work, name=f"send to {receiver.name}", daemon=True).start()

    def send(self, body: Mapping[str, Any]) -> None:
        """Queue an object, or drop it if the queue is full."""
        with suppress(Full):  # the server is away, which a log line says
            self._waiting.put_nowait(body)

    def flush(self) -> None:
        """Wait until the queued objects are sent, for FLUSH_SECONDS at most; not at all if the server is away."""
        sent = threading.Event()
        if self._away:
            return
        with suppress(Full):
            self._waiting.put_nowait(sent)
            sent.wait(FLUSH_SECONDS)

    def _work(self) -> None:
        while True:
            body = self._waiting.get()
            if isinstance(body, threading.Event):
                body.set()
                continue
            problem = self._post(body)
            self._away = bool(problem)
            if problem and not self._said:
                self._said = True
                logger.warning("%s does not take the reports of this training: %s", self._receiver.name, problem)

    def _post(self, body: Mapping[str, Any]) -> str:
        """Post one object; returns the problem, empty if there is none."""
        receiver = self._receiver
        try:
            # Both files change while a training runs.
            headers = {"Authorization": f"Bearer {receiver.token.read_text().strip()}"}
            headers |= {"Content-Type": "application/json"}
            with urllib3.PoolManager(ca_certs=str(receiver.authority), timeout=REQUEST_SECONDS, retries=False) as pool:
                answer = pool.request(
                    "POST", receiver.url, body=json.dumps(body).encode(), headers=headers, redirect=False
                )
        except (OSError, UnicodeDecodeError, urllib3.exceptions.HTTPError) as error:
            return f"{type(error).__name__}: {error}"
        return "" if answer.status < 300 else f"status {answer.status}: {_message(answer.data)}"


def _message(data: bytes) -> str:
    """The reason in an answer of Kubernetes, else the answer's beginning."""
    text = data.decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        return text[:200]
