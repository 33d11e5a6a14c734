"""Reads a JSONL file with answers of another engine: our own lines, or the results of a batch of OpenAI's API."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mantis.errors import ConfigError, InputError
from mantis.schema_versions import Form, without_version

logger = logging.getLogger(__name__)

Line = dict[str, Any]
FORMS = 'Write {"id": ..., "response": "..."}, or the lines that a batch of OpenAI\'s API returns.'


@dataclass(frozen=True, kw_only=True)
class GivenAnswer:
    """An answer to a sample. `benchmark` is empty if the line does not name it. `origin` is for errors.

    `prefixed` says that `id` is `<benchmark>/<id of the sample>`, as in exported requests of OpenAI's form.
    """

    origin: str
    id: str
    benchmark: str
    response: str
    prefixed: bool = False

    def sample(self, benchmark: str) -> str:
        """The id of the sample in this benchmark."""
        return self.id.removeprefix(f"{benchmark}/") if self.prefixed else self.id


def read_answers(file: Path) -> list[GivenAnswer]:
    """Read the answers of a file. A request of a batch that failed gives none, and a log line.

    Raises:
        InputError: the file cannot be read, or a line is wrong.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.", remedy="Name a JSONL file.") from None
    found = [_answer(line, origin) for origin, line in read_lines(data, str(file))]
    answers = [answer for answer in found if answer is not None]
    if not answers:
        raise InputError(f"{file} holds no response.", remedy='Write a line {"id": ..., "response": ...} per sample.')
    if len(answers) < len(found):
        logger.warning("%s: %d requests failed. Their samples count as missing.", file, len(found) - len(answers))
    return answers


def benchmark_of_answers(answers: list[GivenAnswer]) -> str:
    """The benchmark that the lines name, as those of `mantis benchmark export` do; empty if none is named.

    Raises:
        ConfigError: the lines name several benchmarks.
    """
    named = sorted({answer.benchmark for answer in answers if answer.benchmark})
    if len(named) > 1:
        raise ConfigError(
            f"The file holds answers to {', '.join(named)}.",
            remedy="Write a file for each benchmark, and rescore each.",
        )
    return named[0] if named else ""


def read_lines(data: bytes, origin: str) -> Iterator[tuple[str, Line]]:
    """Yield the objects of a JSONL file, each with its place, `<origin>, line <number>`, for error messages.

    Raises:
        InputError: a line is no JSON object.
    """
    for number, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{origin}, line {number}"
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where} is not JSON: {error}.", remedy="Write one JSON object per line.") from None
        if not isinstance(line, dict):
            raise InputError(
                f"{where} is {type(line).__name__}, not an object.", remedy="Write one JSON object per line."
            )
        yield where, without_version(Form.RESPONSE, line, where)


def text_field(line: Line, name: str, origin: str) -> str:
    """A field of a line that holds text.

    Raises:
        InputError: it holds something else.
    """
    value = line.get(name)
    if not isinstance(value, str):
        raise InputError(f"{origin}: {name} = {value!r} is no text.", remedy=FORMS)
    return value


def _answer(line: Line, origin: str) -> GivenAnswer | None:
    if "custom_id" in line:
        return _batch_answer(line, origin)
    benchmark = line.get("benchmark")
    return GivenAnswer(
        origin=origin,
        id=str(line.get("id")),
        benchmark=benchmark if isinstance(benchmark, str) else "",
        response=text_field(line, "response", origin),
    )


def _batch_answer(line: Line, origin: str) -> GivenAnswer | None:
    """A line of a batch's results: {"custom_id", "response": {"status_code", "body"}, "error"}."""
    benchmark, slash, _ = str(line["custom_id"]).partition("/")
    response = line.get("response")
    if not isinstance(response, dict) or line.get("error") or response.get("status_code", 200) != 200:
        return None
    try:
        message = response["body"]["choices"][0]["message"]
        text = message.get("content") or message.get("refusal") or ""
    except (LookupError, TypeError, AttributeError):
        raise InputError(f"{origin} holds no choices[0].message of a chat.", remedy=FORMS) from None
    if not isinstance(text, str):
        raise InputError(f"{origin}: content = {text!r} is no text.", remedy=FORMS)
    return GivenAnswer(
        origin=origin,
        id=str(line["custom_id"]),
        benchmark=benchmark if slash else "",
        response=text.strip(),
        prefixed=True,
    )
