"""Samples of a benchmark, from a folder with its JSON file and images."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import InputError
from components.core.hashing import fingerprint, sha256_bytes, sha256_file
from components.core.store import concurrently
from components.evaluation.benchmarks import Benchmark
from components.models.conversation import IMAGE_MARK, Size

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a sample: where it lies relative to the benchmark's file, what it is, and its bytes on demand."""

    path: str
    sha256: str
    size: Size
    load: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question; `prompt` is the whole user turn, with one `<image>` mark for each picture, in order."""

    id: str
    skill: str
    question: str
    prompt: str
    pictures: tuple[Picture, ...]
    options: tuple[str, ...]
    answer: str

    def valid_answers(self, benchmark: Benchmark) -> tuple[str, ...]:
        """What may be answered: the options' letters or texts; empty where anything may."""
        if benchmark.answer_type == "multiple-choice":
            return tuple(LETTERS[: len(self.options)])
        return self.options


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    id: str
    skill: str
    question: str
    images: list[str]
    options: list[str] = Field(default_factory=list, max_length=len(LETTERS))
    answer: str


def read_samples(folder: Path, benchmark: Benchmark) -> list[Sample]:
    """All samples below `folder`, in the order of the file; every image is hashed and its size is read.

    Raises:
        InputError: the file or an image is missing or not as it should be; names the row, the field and the remedy.
    """
    file = folder / benchmark.file
    rows = [_row(raw, number, file, benchmark) for number, raw in enumerate(_json_list(file))]
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if row.id in seen:
            raise _wrong(file, number, benchmark.fields.id, row.id, "is the id of an earlier row", "Make ids unique.")
        seen.add(row.id)
    names = sorted({name for row in rows for name in row.images})
    pictures = dict(zip(names, concurrently(lambda name: _picture(file, name), names), strict=True))
    return [
        Sample(
            id=row.id,
            skill=row.skill,
            question=row.question,
            prompt=_prompt(row, number, file, benchmark),
            pictures=tuple(pictures[name] for name in row.images),
            options=tuple(row.options),
            answer=_answer(row, number, file, benchmark),
        )
        for number, row in enumerate(rows)
    ]


def folder_identity(folder: Path, benchmark: Benchmark, samples: list[Sample]) -> str:
    """Hash of the benchmark's file and of all its images."""
    pictures = {picture.path: picture.sha256 for sample in samples for picture in sample.pictures}
    return fingerprint({"file": sha256_file(folder / benchmark.file), "pictures": pictures})


@lru_cache(maxsize=64)
def grey_picture(size: Size) -> Picture:
    """A picture of this size that shows nothing."""
    buffer = BytesIO()
    Image.new("RGB", (size.width, size.height), (128, 128, 128)).save(buffer, "PNG")
    data = buffer.getvalue()
    return Picture(path="grey", sha256=sha256_bytes(data), size=size, load=lambda: data)


def _json_list(file: Path) -> list[Any]:
    try:
        raw = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"{file} cannot be read: {error.strerror}.",
            remedy="evaluation.source must hold a folder for each of evaluation.benchmarks, with this file in it.",
        ) from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}.", remedy="Correct the file.") from None
    if not isinstance(raw, list) or not raw:
        raise InputError(f"{file} holds no list of samples.", remedy="Write a JSON list with an object per sample.")
    return raw


def _row(raw: Any, number: int, file: Path, benchmark: Benchmark) -> _Row:
    names = benchmark.fields.model_dump()
    if not isinstance(raw, dict):
        raise InputError(f"{file}, row {number} is {type(raw).__name__}.", remedy="Write an object per sample.")
    try:
        row = _Row.model_validate({ours: raw[theirs] for ours, theirs in names.items() if theirs in raw})
    except ValidationError as error:
        first = error.errors()[0]
        field = names[str(first["loc"][0])]
        raise _wrong(file, number, field, raw.get(field), f"is wrong ({first['msg']})", "Correct the file.") from None
    if row.skill not in benchmark.skills:
        known = f"Skills of {benchmark.name}: {', '.join(benchmark.skills)}."
        raise _wrong(file, number, names["skill"], row.skill, "is not a skill of this benchmark", known)
    return row


def _prompt(row: _Row, number: int, file: Path, benchmark: Benchmark) -> str:
    missing = len(row.images) - row.question.count(IMAGE_MARK)
    if missing < 0:
        problem = f"has {-missing} more {IMAGE_MARK} marks than the row has images"
        raise _wrong(file, number, benchmark.fields.question, row.question, problem, "Remove them or add the images.")
    options = "\n".join(f" ({letter}) {text}" for letter, text in zip(LETTERS, row.options, strict=False))
    question = IMAGE_MARK * missing + row.question  # images without a mark come first, as in training data
    return benchmark.prompt.replace("{options}", options).replace("{question}", question)


def _answer(row: _Row, number: int, file: Path, benchmark: Benchmark) -> str:
    valid: list[str] | str = row.options
    answer = row.answer
    if benchmark.answer_type == "multiple-choice":
        valid, answer = LETTERS[: len(row.options)], row.answer.strip("() .\n").upper()
    if valid and answer not in list(valid):
        problem = f"is none of the options {', '.join(valid)}"
        raise _wrong(file, number, benchmark.fields.answer, row.answer, problem, "Correct the answer or the options.")
    return answer


def _picture(file: Path, name: str) -> Picture:
    path = file.parent / name
    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data)) as image:
            size = Size(width=image.width, height=image.height)
    except (OSError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is no image of a sane size"
        raise InputError(f"{path}, an image of {file}, cannot be read: {reason}.", remedy="Restore it.") from None
    return Picture(path=name, sha256=sha256_bytes(data), size=size, load=partial(path.read_bytes))


def _wrong(file: Path, number: int, field: str, value: Any, problem: str, remedy: str) -> InputError:
    text = repr(value)
    return InputError(
        f"{file}, row {number}: {field} = {text if len(text) <= 80 else text[:77] + '...'} {problem}.", remedy=remedy
    )
