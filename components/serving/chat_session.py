"""A conversation with a model: its turns, its images, and the next answer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from components.serving.live_model import LiveModel
from mantis.errors import InputError
from mantis.generation.answerer import Question
from mantis.generation.live_rows import LiveRow, Reply
from mantis.generation.sample_images import Picture, file_picture
from mantis.images.preprocessing import decode
from mantis.models.conversation import IMAGE_MARK, Turn


class ChatSession:
    """Keeps a conversation. An image is shown with the next question, and stays until `reset`.

    `system` is the text before the first turn; empty keeps the model's own.
    """

    def __init__(self, model: LiveModel, *, system: str = "") -> None:
        self._model, self._system = model, system
        self._turns: tuple[Turn, ...] = ()
        self._shown: tuple[Picture, ...] = ()
        self._waiting: tuple[Picture, ...] = ()

    @property
    def images(self) -> int:
        """The number of images in the conversation, with those for the next question."""
        return len(self._shown) + len(self._waiting)

    def add_image(self, path: Path) -> None:
        """Show the image of a file with the next question.

        Raises:
            InputError: the file is missing, is no image, is damaged, or is too large.
        """
        try:
            picture = file_picture(path.expanduser(), str(path))
        except OSError as error:
            raise InputError(
                f"{path} cannot be shown: {error.strerror or error}.",
                remedy="Name a JPEG, PNG, WebP, GIF, BMP or TIFF.",
            ) from None
        data = picture.load()
        try:
            decode(data)
        except InputError as error:
            raise InputError(f"{path} cannot be shown. {error.problem}", remedy="Name an undamaged image.") from None
        self._waiting = (*self._waiting, replace(picture, load=lambda: data))

    def reset(self) -> None:
        """Forget all turns and images."""
        self._turns, self._shown, self._waiting = (), (), ()

    def ask(self, text: str, send: Callable[[str], object]) -> Reply:
        """Answer the next question. `send` takes each new piece of the answer.

        An `<image>` mark in `text` is the place of the next new image. Images without a mark come before the text. A
        question without an answer, e.g. after Ctrl-C, leaves the conversation as it was.

        Raises:
            InputError: the text has more marks than there are new images, or the model cannot express it.
        """
        missing = len(self._waiting) - text.count(IMAGE_MARK)
        if missing < 0:
            raise InputError(
                f"The question has {text.count(IMAGE_MARK)} {IMAGE_MARK} marks, and {len(self._waiting)} new images.",
                remedy="Add images first: /image PATH.",
            )
        prompt, pictures = IMAGE_MARK * missing + text, (*self._shown, *self._waiting)
        question = Question(id="chat", prompt=prompt, pictures=pictures, history=self._turns, system=self._system)
        prepared = self._model.prepare(question)
        row = LiveRow(max_new_tokens=self._model.longest_answer(prepared), send=send)
        [reply] = self._model.reply([prepared], [row])
        self._turns = (*question.turns, Turn(role="assistant", content=reply.text))
        self._shown, self._waiting = pictures, ()
        return reply
