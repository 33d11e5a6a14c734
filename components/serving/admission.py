"""Admits requests: API key, number of open requests, size of their bodies."""

import asyncio
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from components.serving.server_limits import RequestRefused, ServerLimits


@dataclass(kw_only=True)
class Admission:
    """Counts open requests and the bytes of their bodies. `key` empty: everybody may ask."""

    limits: ServerLimits
    key: str = ""
    open: int = 0
    held: int = 0

    def check_key(self, request: Request) -> None:
        """Compare the request's key with that of the server.

        Raises:
            RequestRefused: it has none, or another one.
        """
        if not self.key:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.key.encode()):
            raise RequestRefused(
                401, "invalid_api_key", "The API key is missing or wrong.", remedy="Send Authorization: Bearer KEY."
            )

    @contextmanager
    def admitted(self, request: Request) -> Iterator[None]:
        """Count the request as open, with the bytes that its body may have.

        Raises:
            RequestRefused: the server has as many requests, or bytes of bodies, as it may hold.
        """
        size = min(_declared(request) or self.limits.body_bytes, self.limits.body_bytes)
        if self.open >= self.limits.requests or self.held + size > self.limits.held_bytes:
            raise RequestRefused(
                429, "too_many_requests", f"The server has {self.open} open requests.", remedy="Ask again in a second."
            )
        self.open += 1
        self.held += size
        try:
            yield
        finally:
            self.open -= 1
            self.held -= size

    async def body(self, request: Request) -> bytes:
        """Read the body. A body over the limit is received and thrown away, so that its sender reads the refusal.

        Raises:
            RequestRefused: it is too large, or does not arrive in time.
        """
        declared = _declared(request)
        if declared and declared > self.limits.body_bytes and request.headers.get("expect") == "100-continue":
            raise self._too_large()  # before the sender begins
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                return await self._received(request)
        except TimeoutError:
            raise RequestRefused(
                408, "body_too_slow", f"The body took more than {self.limits.body_seconds:g} seconds."
            ) from None
        except ClientDisconnect:
            raise RequestRefused(499, "client_gone", "The client closed the connection.") from None

    async def _received(self, request: Request) -> bytes:
        size = 0
        parts: list[bytes] = []
        async for part in request.stream():
            size += len(part)
            if size > self.limits.body_bytes:
                parts.clear()
            else:
                parts.append(part)
        if size > self.limits.body_bytes:
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> RequestRefused:
        return RequestRefused(
            413,
            "body_too_large",
            f"The body has more than {self.limits.body_bytes:,} bytes.",
            remedy="Send fewer or smaller images.",
        )


def _declared(request: Request) -> int | None:
    """The size that the client declares; None without one."""
    given = request.headers.get("content-length", "")
    return int(given) if given.isdecimal() else None
