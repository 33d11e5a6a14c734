"""The limits of the server, the variable of its key, and the refusal of a request."""

from dataclasses import dataclass

MEGABYTE = 1_000_000
MEGAPIXEL = 1_000_000
STOP_SECONDS = 30  # in which open answers may end
# An idle connection stays open for longer than clients (httpx: 5 s) and load balancers (AWS: 60 s) keep it.
# A server that closes first loses the request that a client sends at the same moment.
KEEP_ALIVE_SECONDS = 75
KEY = "MANTIS_API_KEY"  # the environment variable with the key that clients have to send


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What one request may hold, and how much the server holds at a time.

    Args:
        images: images of a request, those of earlier turns among them.
        image_pixels: pixels of an image.
        pixels: pixels of all images of a request.
        tokens: tokens of a response.
        body_bytes: bytes of a request's body.
        requests: requests that wait or are answered.
        held_bytes: bytes of the bodies of these requests together.
        body_seconds: time in which a body has to arrive.
        batch: questions that are answered together.
    """

    images: int = 16
    image_pixels: int = 64 * MEGAPIXEL
    pixels: int = 128 * MEGAPIXEL
    tokens: int = 512
    body_bytes: int = 64 * MEGABYTE
    requests: int = 64
    held_bytes: int = 512 * MEGABYTE
    body_seconds: float = 60.0
    batch: int = 16


class RequestRefused(Exception):  # noqa: N818 - an answer to a client, not a failure of the program
    """A request that is not answered: HTTP status, a fixed word, a sentence, and the remedy."""

    def __init__(self, status: int, code: str, problem: str, *, remedy: str = "") -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.status, self.code = status, code

    @property
    def body(self) -> dict[str, object]:
        """The error in OpenAI's form."""
        kinds = {401: "authentication_error", 429: "rate_limit_error", 503: "server_error", 500: "server_error"}
        kind = kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}
