"""Places the images of a prompt among its text, as a model's wrapper does in the official run."""

from collections.abc import Callable, Mapping
from typing import Literal

from mantis.models.conversation import IMAGE_MARK

ImageLayout = Literal["interleaved", "spaced", "images-first", "lines", "between-texts"]


def arrange(prompt: str, layout: ImageLayout) -> str:
    """Return the prompt with its image marks in another layout. Number and order of the images stay the same."""
    return _LAYOUTS[layout](prompt)


def _interleaved(prompt: str) -> str:
    """Each image stands in its place."""
    return prompt


def _spaced(prompt: str) -> str:
    """Write a space behind every image, as mllava_eval.py does. A blank text between two images disappears."""
    return _with_mark(prompt, f"{IMAGE_MARK} ")


def _lines(prompt: str) -> str:
    """Write a space and a line break behind every image, as openflamingo_eval.py does for chat models."""
    return _with_mark(prompt, f"{IMAGE_MARK} \n")


def _images_first(prompt: str) -> str:
    """Write all images in front of the text, as idefics2_eval.py does. Line breaks join the texts between them."""
    return IMAGE_MARK * prompt.count(IMAGE_MARK) + "\n".join(_texts(prompt))


def _between_texts(prompt: str) -> str:
    """Write an image between two texts each, as mfuyu_eval.py does. The other images stand in front."""
    texts = _texts(prompt)
    between = max(0, len(texts) - 1)
    return IMAGE_MARK * (prompt.count(IMAGE_MARK) - between) + IMAGE_MARK.join(texts)


def _with_mark(prompt: str, mark: str) -> str:
    pieces = prompt.split(IMAGE_MARK)
    return mark.join("" if _is_blank(piece) else piece for piece in pieces)


def _texts(prompt: str) -> list[str]:
    return [piece for piece in prompt.split(IMAGE_MARK) if not _is_blank(piece)]


def _is_blank(text: str) -> bool:
    """Whether eval.py sends no message for this text: it consists of spaces and line breaks."""
    return not text.strip("\n ")


_LAYOUTS: Mapping[ImageLayout, Callable[[str], str]] = {
    "interleaved": _interleaved,
    "spaced": _spaced,
    "images-first": _images_first,
    "lines": _lines,
    "between-texts": _between_texts,
}
