"""A loaded model that answers questions about images: for Python programs, notebooks and MLflow."""

import base64
import binascii
import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from PIL import Image

from components.serving.chat_request import DATA_URI
from components.serving.live_model import MAX_TOKENS, LiveModel, opened_live_model
from mantis.errors import InputError
from mantis.generation.answerer import Question
from mantis.generation.answering_models import ChatModel, FamilyModel
from mantis.generation.live_rows import LiveRow
from mantis.generation.sample_images import Picture, held_picture
from mantis.images.preprocessing import decode
from mantis.models.conversation import IMAGE_MARK
from mantis.store.base import ObjectStore

ImageLike = Path | bytes | Image.Image | str  # a str is a data URI


@dataclass(frozen=True)
class ImageQuestion:
    """A question with its images. An `<image>` mark is an image's place; images without one come first.

    An image is a path, the bytes of a file, an image of Pillow, or a data URI.
    """

    text: str
    images: Sequence[ImageLike] = ()


class AskedModel:
    """A model in memory. It answers as an evaluation does. Use it in a `with` block, or call `close`."""

    def __init__(
        self, store: ObjectStore, model: FamilyModel | ChatModel, *, name: str, max_tokens: int = MAX_TOKENS
    ) -> None:
        """Load a model onto the first GPU, else the CPU.

        Raises:
            EvaluationError: the files hold no model that can be loaded.
        """
        self._opened = ExitStack()
        self._live: LiveModel = self._opened.enter_context(
            opened_live_model(store, model, name=name, max_tokens=max_tokens)
        )

    @property
    def name(self) -> str:
        """The name that the model was loaded by."""
        return self._live.name

    def ask(self, text: str, *images: ImageLike) -> str:
        """Answer one question about images.

        Raises:
            InputError: an image cannot be read, the marks do not fit the images, or the question is too long.
        """
        return self.ask_all([ImageQuestion(text, images)])[0]

    def ask_all(self, questions: Sequence[ImageQuestion]) -> list[str]:
        """Answer questions in the batches of an evaluation. Returns the answers in the order of the questions.

        Raises:
            InputError: as in `ask`.
        """
        prepared = [self._live.prepare(_question(str(place), each)) for place, each in enumerate(questions)]
        answers: dict[str, str] = {}
        for batch in self._live.plan(prepared):
            rows = [LiveRow(max_new_tokens=self._live.longest_answer(each)) for each in batch]
            for each, reply in zip(batch, self._live.reply(batch, rows), strict=True):
                answers[each.question.id] = reply.text
        return [answers[str(place)] for place in range(len(questions))]

    def close(self) -> None:
        """Delete copies of the model's files."""
        self._opened.close()

    def __enter__(self) -> "AskedModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _question(number: str, asked: ImageQuestion) -> Question:
    marks, missing = asked.text.count(IMAGE_MARK), len(asked.images) - asked.text.count(IMAGE_MARK)
    if missing < 0:
        raise InputError(
            f"The question has {marks} {IMAGE_MARK} marks and {len(asked.images)} images.",
            remedy="Give an image for each mark.",
        )
    pictures = tuple(_picture(image, place) for place, image in enumerate(asked.images, 1))
    return Question(id=number, prompt=IMAGE_MARK * missing + asked.text, pictures=pictures)


def _picture(image: ImageLike, place: int) -> Picture:
    """The image, decoded once as a check."""
    name = str(image) if isinstance(image, Path) else f"image {place}"
    try:
        data = _bytes_of(image)
        picture = held_picture(data, name)
        decode(data)
    except OSError as error:
        raise InputError(
            f"{name} cannot be shown: {error.strerror or error}.", remedy="Give a JPEG, PNG, WebP, GIF, BMP or TIFF."
        ) from None
    except InputError as error:
        raise InputError(f"{name} cannot be shown. {error.problem}", remedy=error.remedy) from None
    return picture


def _bytes_of(image: ImageLike) -> bytes:
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, Path):
        return image.expanduser().read_bytes()
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    found = DATA_URI.match(image) if isinstance(image, str) else None
    if found is None:
        raise InputError(
            f"It is {str(image)[:40]!r}, a {type(image).__name__}.",
            remedy="Give a pathlib.Path, bytes, an image of Pillow, or a data URI such as data:image/png;base64,...",
        )
    try:
        return base64.b64decode(image[found.end() :], validate=True)
    except binascii.Error as error:
        raise InputError(f"It is no base64: {error}.", remedy="Encode the bytes of the file.") from None
