"""The figures of the server, in the form of Prometheus."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from components.serving.batching_engine import AnsweredBatch
from mantis.generation.live_rows import Reply

NAMESPACE = "mantis"  # the beginning of every figure's name
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Counts requests, tokens and batches. `content` is what Prometheus reads."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests_total", "Finished requests by HTTP status", "status")
        self._seconds = self._histogram("request_seconds", "From the request to the end of its answer", SECONDS)
        self._first = self._histogram("first_token_seconds", "From the request to its first text", SECONDS)
        self._prompt = self._counter("prompt_tokens_total", "Tokens of prompts, with their images")
        self._generated = self._counter("generated_tokens_total", "Generated tokens")
        self._batches = self._histogram("batch_questions", "Questions that were answered together", SIZES)
        self._busy = self._counter("model_seconds_total", "Seconds in which the model answered")
        self._open = self._gauge("requests_open", "Requests that wait or are answered")
        self._waiting = self._gauge("requests_waiting", "Questions that no batch holds yet")

    def watch(self, *, opened: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Read the numbers of open requests and waiting questions whenever Prometheus asks."""
        self._open.set_function(opened)
        self._waiting.set_function(waiting)

    def finished(self, status: int, seconds: float) -> None:
        """Count a request that has its answer or its refusal."""
        self._requests.labels(status=str(status)).inc()
        self._seconds.observe(seconds)

    def first_text(self, seconds: float) -> None:
        """Note how long a client waited for the first text."""
        self._first.observe(seconds)

    def replied(self, reply: Reply) -> None:
        """Count the tokens of an answer."""
        self._prompt.inc(reply.prompt_tokens)
        self._generated.inc(reply.tokens)

    def batch(self, batch: AnsweredBatch) -> None:
        """Note a batch of the model."""
        self._batches.observe(batch.questions)
        self._busy.inc(batch.seconds)

    def content(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return bytes(generate_latest(self._registry))

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, namespace=NAMESPACE, registry=self._registry)

    def _histogram(self, name: str, words: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, words, buckets=buckets, namespace=NAMESPACE, registry=self._registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(name, words, namespace=NAMESPACE, registry=self._registry)
