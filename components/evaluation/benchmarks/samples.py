"""Turns a published row of any file format into the parts of a sample: question, target, images."""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Derived
from components.evaluation.scoring.targets import CHOICES, LETTERS, Kind, Target
from mantis.models.conversation import IMAGE_MARK

ABSENT = {"", "N/A", "nan"}  # values of tables for a missing option or hint

Column = Mapping[str, Any]


class RowError(Exception):
    """A row cannot become a sample. `field` has the `value`, and `problem` says why it is wrong."""

    def __init__(self, field: str, value: Any, problem: str, remedy: str = "Correct the file.") -> None:
        self.field, self.value, self.problem, self.remedy = field, value, problem, remedy
        super().__init__(f"{field} {problem}")


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """The parsed parts of a row.

    `published` holds the options as the file has them, and `cells` the columns that only the prompt reads. `images`
    holds the file's cells: a path, bytes, or {"bytes", "path"}.
    """

    id: str
    skill: str
    unit: str
    cluster: str
    question: str
    hint: str
    target: Target
    published: tuple[str, ...]
    cells: Column
    images: tuple[Any, ...] = field(repr=False)


def parse_row(raw: Column, number: int, benchmark: Benchmark) -> BenchmarkRow:
    """Parse the row `number` of a benchmark.

    Raises:
        RowError: the row lacks a column that the benchmark's YAML names, or holds a wrong value in it.
    """
    names = benchmark.fields
    identity = str(number) if names.id is None else _text(raw, names.id)
    skill = next(iter(benchmark.skills)) if names.skill is None else _derived(raw, names.skill)
    if skill not in benchmark.skills:
        known = f"Use a skill of {benchmark.name}: {', '.join(benchmark.skills)}."
        column = names.skill.column if isinstance(names.skill, Derived) else names.skill
        raise RowError(str(column), skill, "is not a skill of this benchmark", known)
    return BenchmarkRow(
        id=identity,
        skill=skill,
        unit=identity if names.unit is None else _derived(raw, names.unit),
        cluster="" if names.cluster is None or is_absent(raw.get(names.cluster)) else str(raw[names.cluster]),
        question=_question(raw, benchmark),
        hint="" if names.hint is None or is_absent(raw.get(names.hint)) else str(raw[names.hint]),
        target=parse_target_of(raw, benchmark),
        published=_published_options(raw, benchmark) if names.options is not None else (),
        cells={column: raw.get(column) for column in benchmark.resolved.prompt.columns},
        images=_images(raw, benchmark),
    )


def _question(raw: Column, benchmark: Benchmark) -> str:
    column = benchmark.resolved.prompt.question or benchmark.fields.question
    return "" if column is None else _text(raw, column).replace(benchmark.fields.mark, IMAGE_MARK)


def parse_target_of(raw: Column, benchmark: Benchmark) -> Target:
    """Parse the target of a row's responses. It raises the error of `parse_row`."""
    names = benchmark.fields
    kind: Kind = benchmark.kind
    if names.kind is not None:
        kind = _derived(raw, names.kind)  # type: ignore[assignment]  # `values` maps the file's words to kinds
    options = _options(raw, benchmark) if names.options is not None else ()
    if kind in CHOICES:
        answers: tuple[str, ...] = (_letter(raw, options, benchmark),)
    else:
        answers = _answers(raw, benchmark)
        if options and kind == "short" and answers[0] not in options:
            problem = f"is none of the options {', '.join(options)}"
            raise RowError(str(names.answer), answers[0], problem, "Correct the answer or the options.")
    details = {ours: raw[theirs] for ours, theirs in names.details.items() if raw.get(theirs) is not None}
    return Target(kind=kind, options=options, answers=answers, details=details)


def _images(raw: Column, benchmark: Benchmark) -> tuple[Any, ...]:
    names = benchmark.fields.images
    if isinstance(names, str):
        found = raw.get(names)
        cells = [] if found is None else found if isinstance(found, list | tuple) else [found]
        if isinstance(found, str):
            raise RowError(names, found, "is no list of images")
        return tuple(cells)
    cells = [raw.get(name) for name in names]
    while cells and cells[-1] is None:
        cells.pop()
    return tuple(cells)


def _options(raw: Column, benchmark: Benchmark) -> tuple[str, ...]:
    published = _published_options(raw, benchmark)
    return tuple(_without_letter(text, letter) for text, letter in zip(published, LETTERS, strict=False))


def _published_options(raw: Column, benchmark: Benchmark) -> tuple[str, ...]:
    names = benchmark.fields.options
    if isinstance(names, str):
        found = _literal(raw.get(names))
        texts = [] if found is None else found
        if not isinstance(texts, list | tuple):
            raise RowError(names, found, "is no list of options")
    else:
        texts = [raw.get(name) for name in names or () if not is_absent(raw.get(name))]
    if len(texts) > len(LETTERS):
        raise RowError(str(names), texts, f"has more than {len(LETTERS)} options")
    return tuple(map(str, texts))


def _without_letter(text: str, letter: str) -> str:
    """Remove the letter in front of an option, e.g. "(A) a cat" or "A. a cat". The prompt adds it again."""
    return re.sub(rf"^(?:\({letter}\)|{letter}[.):])\s*(?=\S)", "", text)


def _letter(raw: Column, options: tuple[str, ...], benchmark: Benchmark) -> str:
    names = benchmark.fields
    value = _cell(raw, str(names.answer))
    if names.answer_is == "index":
        letter = LETTERS[int(value)] if str(value).isdigit() and int(value) < len(options) else ""
    elif names.answer_is == "text":
        same = [place for place, option in enumerate(options) if option == _without_letter(str(value), LETTERS[place])]
        letter = LETTERS[same[0]] if same else ""
    else:
        letter = str(value).strip("() .\n").upper()
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        problem = (
            f"is none of the options {', '.join(options) if names.answer_is == 'text' else LETTERS[: len(options)]}"
        )
        raise RowError(str(names.answer), value, problem, "Correct the answer or the options.")
    return letter


def _answers(raw: Column, benchmark: Benchmark) -> tuple[str, ...]:
    names = benchmark.fields
    if names.answers is None:
        if names.answer is None:
            return ()
        found = _literal(_cell(raw, names.answer))
        return tuple(str(answer) for answer in found) if isinstance(found, list) else (str(found),)
    found = _cell(raw, names.answers)
    if not isinstance(found, list) or not found:
        raise RowError(names.answers, found, "is no list of answers")
    return tuple(str(answer["answer"] if isinstance(answer, dict) else answer) for answer in found)


def _derived(raw: Column, source: str | Derived) -> str:
    if isinstance(source, str):
        return _text(raw, source)
    value = _text(raw, source.column)
    steps: list[Callable[[str], str | None]] = []
    if source.pattern is not None:
        pattern = source.pattern
        steps.append(lambda text: found[1] if (found := re.search(pattern, text)) else None)
    if source.modulo is not None:
        modulo = source.modulo
        steps.append(lambda text: str(int(text) % modulo) if text.isdigit() else None)
    if source.values is not None:
        steps.append(source.values.get)
    for step in steps:
        made = step(value)
        if made is None:
            raise RowError(source.column, value, "does not fit the benchmark's YAML")
        value = made
    return value


def _literal(value: Any) -> Any:
    """Parse a list that is written as Python text, as MMMU does."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return value


def _cell(raw: Column, name: str) -> Any:
    if name not in raw or raw[name] is None:
        raise RowError(name, None, "is missing")
    return raw[name]


def _text(raw: Column, name: str) -> str:
    value = _cell(raw, name)
    if not isinstance(value, str | int | float):
        raise RowError(name, value, f"is {type(value).__name__}, not text")
    return str(value)


def is_absent(value: Any) -> bool:
    """Whether a cell holds nothing, as tables write it."""
    return value is None or str(value).strip() in ABSENT
