"""Asks an OpenAI-compatible endpoint: several requests at a time, with retries, within its rate limit."""

import itertools
import json
import logging
import os
import random
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader

from mantis.config.evaluation_settings import EvaluationSettings
from mantis.errors import EvaluationError
from mantis.generation.answerer import PreparedQuestion, Question
from mantis.generation.chat_messages import data_uri, openai_request
from mantis.generation.decoding import Decoding
from mantis.generation.generation_batches import Cost

logger = logging.getLogger(__name__)

KEY = "OPENAI_API_KEY"  # the environment variable that every client of this API reads
GROUP = 8  # questions whose responses are stored together
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
REFUSALS = {400, 413, 415, 422}  # of one question: it is too long, or the service does not want to answer
PATIENCE = 900.0  # seconds in which one request is tried again
FIRST_PATIENCE = 60.0  # the same, before the endpoint has answered for the first time
LONGEST_WAIT = 60.0  # seconds between two tries, unless the server names more
MOST_REFUSALS = 5  # refusals without any response before: then the requests themselves are wrong
TIMEOUT = urllib3.Timeout(connect=10, read=600)


@dataclass(kw_only=True)
class OpenEndpoint:
    """An endpoint, which needs no preparation. It is both the open model and its answerer."""

    url: str
    name: str
    fields: dict[str, Any]
    concurrency: int
    decoding: Decoding
    patience: float = PATIENCE
    first_patience: float = FIRST_PATIENCE
    _answered: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _not_before: float = field(default=0.0, init=False)  # the time.monotonic() until which the server wants no request
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)

    def prepare(self, questions: Sequence[Question]) -> list[PreparedQuestion]:
        """The endpoint counts costs by itself."""
        return [PreparedQuestion(question=each, cost=Cost(tokens=0, patches=0, picture="")) for each in questions]

    def plan(self, prepared: Sequence[PreparedQuestion], settings: EvaluationSettings) -> list[list[PreparedQuestion]]:
        """Group questions whose responses are stored together."""
        return [list(prepared[start : start + GROUP]) for start in range(0, len(prepared), GROUP)]

    def devices(self, processes: int) -> list[str]:
        """One process asks, with threads."""
        return [self.url]

    def load(self, device: str) -> "OpenEndpoint":
        """Nothing is loaded."""
        return self

    def answer(self, batches: Iterable[Sequence[PreparedQuestion]]) -> Iterator[list[str | None]]:
        """Yield the responses of each batch, in order, with `concurrency` requests under way.

        Raises:
            EvaluationError: the endpoint cannot be reached, refuses access, or refuses every question.
        """
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="request")
        try:
            waiting: deque[list[Future[str | None]]] = deque()
            for batch in batches:
                waiting.append([pool.submit(self._respond, each.question) for each in batch])
                # Finished responses may wait for a slow one before them. Twice the requests keep all threads busy.
                while sum(map(len, waiting)) > 2 * self.concurrency + GROUP:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
            self._stopped.clear()

    def _respond(self, question: Question) -> str | None:
        request = openai_request(question, self.decoding, model=self.name, link=data_uri, fields=self.fields)
        body, began = json.dumps(request).encode(), time.monotonic()
        for tries in itertools.count():
            self._wait_until(self._not_before)
            status, answer, pause = self._post(body)
            if status == 200 and (text := _text(answer)) is not None:
                with self._lock:
                    self._answered += 1
                return text
            if status not in RETRIED | {0, 200}:
                self._refuse(question, status, answer)
                return None
            patience = self.patience if self._answered or status == 429 else self.first_patience
            wait = pause if pause is not None else min(LONGEST_WAIT, 2.0**tries) * random.uniform(0.5, 1)
            if time.monotonic() + wait - began > patience:
                raise _unusable(self.url, f"failed {tries + 1} times for one request: {_words(status, answer)}")
            self._postpone(wait, status, answer, shared=pause is not None)
        return None

    def _post(self, body: bytes) -> tuple[int, bytes, float | None]:
        """Status, body, and the seconds to wait that the server named. Status 0: no complete answer arrived."""
        try:
            answer = self._pool.request(
                "POST", f"{self.url}/chat/completions", body=body, headers=_headers(), timeout=TIMEOUT, retries=False
            )
        except HTTPError as error:
            return 0, f"{type(error).__name__}: {error}".encode(), None
        return answer.status, answer.data, _retry_after(answer.headers.get("Retry-After"))

    def _refuse(self, question: Question, status: int, answer: bytes) -> None:
        if status not in REFUSALS:
            raise _unusable(self.url, f"refuses access: {_words(status, answer)}")
        with self._lock:
            self._refused += 1
            all_refused = not self._answered and self._refused >= MOST_REFUSALS
        if all_refused:
            raise _unusable(self.url, f"refuses every question: {_words(status, answer)}")
        logger.warning("The endpoint refuses to answer %s: %s", question.id, _words(status, answer))

    def _postpone(self, seconds: float, status: int, answer: bytes, *, shared: bool) -> None:
        """Wait before the next try. If the server named the time, all requests wait."""
        logger.info("The endpoint is asked again in %.1f s: %s", seconds, _words(status, answer))
        until = time.monotonic() + seconds
        if shared:
            with self._lock:
                self._not_before = max(self._not_before, until)
        self._wait_until(until)

    def _wait_until(self, until: float) -> None:
        seconds = until - time.monotonic()
        if seconds > 0:
            self._stopped.wait(seconds)
        if self._stopped.is_set():
            raise EvaluationError("The evaluation stopped.", remedy="Run the same command again.")

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        proxy = urllib.request.getproxies().get(self.url.partition(":")[0])
        host = self.url.partition("://")[2].partition("/")[0]
        if proxy and not urllib.request.proxy_bypass(host):
            return urllib3.ProxyManager(proxy, maxsize=self.concurrency)
        return urllib3.PoolManager(maxsize=self.concurrency)


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY)
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _retry_after(value: str | None) -> float | None:
    """Seconds that a header Retry-After names, as a number or a date."""
    if value is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(value)
    except InvalidHeader:
        return None


def _text(answer: bytes) -> str | None:
    """The text of a response; None if the body is not a complete response."""
    try:
        message = json.loads(answer)["choices"][0]["message"]
        text = message.get("content") or message.get("refusal") or ""
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if isinstance(text, list):  # some servers return parts
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    return str(text).strip()


def _words(status: int, answer: bytes) -> str:
    """What went wrong, in one line: the status, and the server's own message."""
    text = answer.decode(errors="replace")
    try:
        error = json.loads(answer)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        pass
    key = os.environ.get(KEY)
    shown = " ".join((text.replace(key, KEY) if key else text).split())[:200]
    return f"HTTP {status}: {shown}" if status else shown


def _unusable(url: str, problem: str) -> EvaluationError:
    return EvaluationError(
        f"{url} {problem}.",
        remedy=f"Check --endpoint, --model and {KEY}. --request FIELD=VALUE changes a field of the requests. The same "
        "command continues with the responses that it has.",
    )
