"""Reads the body of a request to /v1/chat/completions: OpenAI's form, and nothing of it that cannot be honoured."""

import base64
import binascii
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.serving.server_limits import RequestRefused, ServerLimits
from mantis.errors import InputError
from mantis.generation.answerer import Question
from mantis.generation.sample_images import Picture
from mantis.hashing import sha256_bytes
from mantis.images.formats import open_image
from mantis.images.preprocessing import decode
from mantis.models.conversation import IMAGE_MARK, ImageSize, Turn

DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
MOST_STOPS = 4  # as OpenAI
GREEDY = "Answers are greedy, as in an evaluation."
SHOWN = 60  # characters of a wrong value
REMEDIES = {
    "temperature": f" {GREEDY} Send 0, or leave the field out.",
    "n": " There is one greedy answer.",
    "presence_penalty": f" {GREEDY}",
    "frequency_penalty": f" {GREEDY}",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImageUrl(_Part):
    """Where an image is: a data URI. `detail` has no effect, since the family decides the resolution."""

    url: str
    detail: str | None = None


class TextPart(_Part):
    """A text of a message."""

    type: Literal["text"]
    text: str


class ImagePart(_Part):
    """An image of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Message(_Part):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    name: str | None = None

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        """The content as parts."""
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else list(self.content)


class StreamOptions(_Part):
    """Whether a stream ends with the usage."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(BaseModel):
    """A request. Fields that change no greedy answer are accepted; a value that would change it is refused."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Literal[0] | None = None
    n: Literal[1] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    top_p: float | None = None
    seed: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None

    @property
    def wanted_tokens(self) -> int | None:
        """The limit of the response that the client asks for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the response."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def parse_request(body: bytes) -> ChatRequest:
    """Read the body of a request.

    Raises:
        RequestRefused: it is no JSON, or a field is unknown or has a value that the server cannot honour.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(400, "invalid_json", f"The body is no JSON: {error}.") from None
    try:
        request = ChatRequest.model_validate(raw)
    except ValidationError as error:
        raise RequestRefused(400, "invalid_field", _first_problem(error)) from None
    if len(request.stops) > MOST_STOPS or "" in request.stops:
        raise RequestRefused(400, "invalid_field", f"stop holds at most {MOST_STOPS} texts, none of them empty.")
    return request


def question_of(request: ChatRequest, number: str, limits: ServerLimits) -> Question:
    """The conversation of a request as a question. Its images are decoded once, as a check.

    Raises:
        RequestRefused: the roles do not alternate, or an image is unreadable, is no data URI, or breaks a limit.
    """
    messages = list(request.messages)
    system = ""
    if messages[0].role in ("system", "developer"):
        first = messages.pop(0)
        system = "".join(_text(part, first.role) for part in first.parts)
    reader = _ImageReader(limits)
    turns = []
    for place, message in enumerate(messages):
        expected = ("user", "assistant")[place % 2]
        if message.role != expected:
            raise RequestRefused(
                400,
                "roles_not_alternating",
                f"messages[{place + bool(system)}] has the role {message.role}, where {expected} is expected.",
                remedy="Send a system text at most, then user and assistant in turn.",
            )
        content = "".join(
            reader.mark(part) if isinstance(part, ImagePart) and expected == "user" else _text(part, message.role)
            for part in message.parts
        )
        turns.append(Turn(role=expected, content=content))  # type: ignore[arg-type]  # one of the two roles
    if not turns or turns[-1].role != "user":
        raise RequestRefused(400, "no_question", "The last message is not the user's.")
    *history, last = turns
    return Question(
        id=number, prompt=last.content, pictures=tuple(reader.pictures), history=tuple(history), system=system
    )


def _text(part: TextPart | ImagePart, role: str) -> str:
    if isinstance(part, ImagePart):
        raise RequestRefused(400, "image_not_allowed", f"A message of the role {role} holds an image.")
    if IMAGE_MARK in part.text:
        raise RequestRefused(
            400,
            "mark_in_text",
            f"A text holds {IMAGE_MARK}, which stands for an image.",
            remedy="Send images as parts of the type image_url.",
        )
    return part.text


class _ImageReader:
    """Reads the images of a request, in order, within the limits."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._pixels = 0
        self.pictures: list[Picture] = []

    def mark(self, part: ImagePart) -> str:
        """Read an image. Returns its mark."""
        number = len(self.pictures) + 1
        if number > self._limits.images:
            raise RequestRefused(400, "too_many_images", f"The request has more than {self._limits.images} images.")
        data = _data_of(part.image_url.url, number)
        size = self._size(data, number)
        try:
            decode(data)
        except (InputError, RuntimeError, MemoryError) as error:
            problem = error.problem if isinstance(error, InputError) else str(error)
            raise RequestRefused(400, "invalid_image", f"Image {number}: {problem}") from None
        self.pictures.append(Picture(path=f"image {number}", sha256=sha256_bytes(data), size=size, load=lambda: data))
        return IMAGE_MARK

    def _size(self, data: bytes, number: int) -> ImageSize:
        try:
            with open_image(data) as image:
                size = ImageSize(width=image.width, height=image.height)
        except Exception:  # decoders of foreign bytes fail in many ways
            raise RequestRefused(
                400, "invalid_image", f"Image {number} is no image of an accepted format.",
                remedy="Send a JPEG, PNG, WebP, GIF, BMP or TIFF.",
            ) from None  # fmt: skip
        pixels = size.width * size.height
        self._pixels += pixels
        if pixels > self._limits.image_pixels:
            raise RequestRefused(
                400,
                "image_too_large",
                f"Image {number} has {size.width} x {size.height} pixels, more than {self._limits.image_pixels:,}.",
                remedy="Make it smaller.",
            )
        if self._pixels > self._limits.pixels:
            raise RequestRefused(
                400, "images_too_large", f"The images have more than {self._limits.pixels:,} pixels together.",
                remedy="Make them smaller.",
            )  # fmt: skip
        return size


def _data_of(url: str, number: int) -> bytes:
    found = DATA_URI.match(url)
    if found is None:
        shown = url[:40] + ("…" if len(url) > 40 else "")
        raise RequestRefused(
            400,
            "image_url_not_allowed",
            f"Image {number} is {shown!r}. This server fetches nothing.",
            remedy="Send the image itself as a data URI: data:image/jpeg;base64,...",
        )
    try:
        return base64.b64decode(url[found.end() :], validate=True)
    except binascii.Error as error:
        raise RequestRefused(400, "invalid_image", f"Image {number} is no base64: {error}.") from None


def _first_problem(error: ValidationError) -> str:
    """A sentence about the error that names its field best: the deepest one, since contents may be text or parts."""
    found = max(error.errors(include_url=False, include_context=False), key=lambda each: len(each["loc"]))
    names = [str(part) for part in found["loc"] if str(part).isidentifier() or isinstance(part, int)]
    place = ".".join(name for name in names if name not in ("str", "text", "image_url")) or "the body"
    if found["type"] == "extra_forbidden":
        return f"The field {place} is unknown to this server."
    if found["type"] == "missing":
        return f"The field {place} is missing."
    value = repr(found["input"])
    shown = value if len(value) <= SHOWN else f"{value[:SHOWN]}…"
    return f"{place} = {shown}: {found['msg']}.{REMEDIES.get(place, '')}"
