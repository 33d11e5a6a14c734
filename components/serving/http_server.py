"""The OpenAI-compatible server: /v1/chat/completions, /v1/models, /health, /metrics, and a page to try it."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from components.serving.admission import Admission
from components.serving.batching_engine import BatchingEngine, Ticket
from components.serving.chat_request import ChatRequest, parse_request, question_of
from components.serving.server_limits import RequestRefused, ServerLimits
from components.serving.server_metrics import ServerMetrics
from mantis.errors import InputError, MantisError
from mantis.generation.answerer import PreparedQuestion
from mantis.generation.live_rows import LiveRow, Reply

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page.html")
READERS = 2  # requests whose images are decoded at the same time: each may need memory for a large one
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(kw_only=True)
class ModelServer:
    """Serves the model of an engine. `hosts` are the names by which browsers may reach it."""

    engine: BatchingEngine
    limits: ServerLimits
    metrics: ServerMetrics
    key: str = ""
    hosts: Sequence[str] = ("*",)
    started: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.admission = Admission(limits=self.limits, key=self.key)
        self._readers: CapacityLimiter | None = None
        self.metrics.watch(opened=lambda: self.admission.open, waiting=lambda: self.engine.waiting)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(self.hosts))],
            exception_handlers={RequestRefused: _refused},
        )

    async def _page(self, _: Request) -> Response:
        facts = {"model": self.engine.model.name, "key": bool(self.key), "images": self.limits.images}
        page = PAGE.read_text(encoding="utf-8").replace("{{FACTS}}", json.dumps(facts).replace("<", "\\u003c"))
        return HTMLResponse(page, headers=SAFE)

    async def _health(self, _: Request) -> Response:
        if self.engine.alive:
            return JSONResponse({"status": "ok", "model": self.engine.model.name})
        return JSONResponse({"status": "the model's thread has ended"}, status_code=503)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.content(), media_type=self.metrics.content_type)

    async def _models(self, request: Request) -> Response:
        self.admission.check_key(request)
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        self.admission.check_key(request)
        self._check_model(request.path_params["name"])
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {"id": self.engine.model.name, "object": "model", "created": self.started, "owned_by": "mantis"}

    def _check_model(self, name: str) -> None:
        if name != self.engine.model.name:
            raise RequestRefused(
                404, "model_not_found", f"The model {name!r} is not served.", remedy=f"Ask {self.engine.model.name!r}."
            )

    async def _chat(self, request: Request) -> Response:
        """Answer a request, or refuse it. Its place is free again when its last byte was sent."""
        began = time.monotonic()
        answer = _Answer(server=self, began=began)
        try:
            self.admission.check_key(request)
            answer.hold(request)
            return await answer.response(request)
        except RequestRefused as refusal:
            answer.end(refusal.status)
            raise
        except BaseException:
            answer.end(500)
            raise

    async def prepared(self, body: bytes, number: str) -> tuple[ChatRequest, PreparedQuestion]:
        """Read, check and encode a request in a thread.

        Raises:
            RequestRefused: it is malformed, breaks a limit, or the model cannot express it.
        """
        if self._readers is None:
            self._readers = CapacityLimiter(READERS)
        return await run_sync(self._prepare, body, number, limiter=self._readers)

    def _prepare(self, body: bytes, number: str) -> tuple[ChatRequest, PreparedQuestion]:
        request = parse_request(body)
        self._check_model(request.model)
        wanted = request.wanted_tokens
        if wanted is not None and wanted > self.limits.tokens:
            raise RequestRefused(
                400, "max_tokens_too_large", f"max_tokens = {wanted}: this server allows {self.limits.tokens}."
            )
        try:
            return request, self.engine.prepare(question_of(request, number, self.limits))
        except InputError as error:
            raise RequestRefused(400, "invalid_conversation", error.problem, remedy=error.remedy) from None


@dataclass(kw_only=True)
class _Answer:
    """One request on its way. `end` frees its place, once."""

    server: ModelServer
    began: float
    number: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    ticket: Ticket | None = None
    _held: Any = None
    _ended: bool = False

    def hold(self, request: Request) -> None:
        held = self.server.admission.admitted(request)
        held.__enter__()
        self._held = held

    def end(self, status: int) -> None:
        """Free the place of the request, and give its question up if it has no answer yet."""
        if self._ended:
            return
        self._ended = True
        if self.ticket is not None:
            self.ticket.cancel()
        if self._held is not None:
            self._held.__exit__(None, None, None)
        self.server.metrics.finished(status, time.monotonic() - self.began)

    async def response(self, request: Request) -> Response:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await self.server.admission.body(request)
        if content_type != "application/json":
            raise RequestRefused(
                415, "not_json", f"The content type is {content_type!r}.", remedy="Send application/json."
            )
        asked, prepared = await self.server.prepared(body, self.number)
        del body
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def send(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        wanted = asked.wanted_tokens or self.server.limits.tokens
        row = LiveRow(
            max_new_tokens=self.server.engine.model.longest_answer(prepared, wanted),
            stop=asked.stops,
            send=send if asked.stream else None,
        )
        self.ticket = self.server.engine.submit(prepared, row)
        if asked.stream:
            self.ticket.future.add_done_callback(lambda _: send(None))
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return _EventStream(self._events(pieces, usage=usage), ended=lambda: self.end(200))
        reply = await self._reply(request)
        response = JSONResponse(self._completion(reply))
        self.end(200)
        return response

    async def _reply(self, request: Request) -> Reply:
        """Wait for the reply, or for the client to go."""
        assert self.ticket is not None
        replied = asyncio.ensure_future(asyncio.wrap_future(self.ticket.future))
        gone = asyncio.ensure_future(request.receive())  # after the body, only the end of the connection arrives
        try:
            both: set[asyncio.Future[Any]] = {replied, gone}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not replied.done():
                raise RequestRefused(499, "client_gone", "The client closed the connection.")
            reply = replied.result()
        except RequestRefused:
            raise
        except Exception as error:  # of the model's code
            raise _failed(error) from error
        finally:
            gone.cancel()
        self.server.metrics.first_text(time.monotonic() - self.began)
        self.server.metrics.replied(reply)
        return reply

    async def _events(self, pieces: "asyncio.Queue[str | None]", *, usage: bool) -> AsyncIterator[str]:
        """The answer as server-sent events: role, pieces of text, the reason of its end, and the usage if wanted."""
        assert self.ticket is not None
        yield self._event({"role": "assistant", "content": ""})
        first = True
        while (piece := await pieces.get()) is not None:
            if first:
                self.server.metrics.first_text(time.monotonic() - self.began)
                first = False
            yield self._event({"content": piece})
        try:
            reply = self.ticket.future.result()
        except Exception as error:  # of the model's code
            yield f"data: {json.dumps(_failed(error).body)}\n\n"
            return
        self.server.metrics.replied(reply)
        yield self._event({}, finish=reply.finish)
        if usage:
            yield self._line({"choices": [], "usage": _usage(reply)})
        yield "data: [DONE]\n\n"

    def _event(self, delta: dict[str, str], *, finish: str | None = None) -> str:
        return self._line({"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    def _line(self, fields: dict[str, Any]) -> str:
        return f"data: {json.dumps(self._head('chat.completion.chunk') | fields, ensure_ascii=False)}\n\n"

    def _completion(self, reply: Reply) -> dict[str, Any]:
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
        return self._head("chat.completion") | {"choices": [choice], "usage": _usage(reply)}

    def _head(self, kind: str) -> dict[str, Any]:
        created = int(time.time())
        return {"id": self.number, "object": kind, "created": created, "model": self.server.engine.model.name}


class _EventStream(StreamingResponse):
    """Server-sent events. `ended` is called when the last one was sent, or the client has gone."""

    def __init__(self, events: AsyncIterator[str], *, ended: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


def _usage(reply: Reply) -> dict[str, int]:
    total = reply.prompt_tokens + reply.tokens
    return {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens, "total_tokens": total}


def _failed(error: Exception) -> RequestRefused:
    """The answer to a question that the model failed on. Its own text stays in the log."""
    if isinstance(error, MantisError):
        return RequestRefused(503, "not_answered", error.problem, remedy=error.remedy)
    return RequestRefused(500, "model_failed", "The model failed on this question. The server's log has the reason.")


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, RequestRefused)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 413: {"Connection": "close"}}
    return JSONResponse(refusal.body, status_code=refusal.status, headers=headers.get(refusal.status))
