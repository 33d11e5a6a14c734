"""Scores existing responses: those of an evaluation in a store, or a JSONL file with ids and responses."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from components.evaluation.aggregate import score_rows
from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.controls import Condition
from components.evaluation.readers.benchmark_reader import Missing, Samples
from components.evaluation.scoring.score_response import Scoring, score_response
from components.evaluation.scoring.targets import Target, parse_target
from mantis.artifacts.responses import FOLDER, Response
from mantis.artifacts.scores import Score
from mantis.errors import InputError
from mantis.schema_versions import Form, load_rows, without_version
from mantis.store.base import ObjectStore, concurrently

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """The rows of scores.json, and the scored responses by condition."""

    rows: list[Score]
    responses: dict[Condition, list[Response]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The parts of a sample that a line of a foreign JSONL file lacks."""

    skill: str
    unit: str
    question: str
    target: Target


def rescore_evaluation(
    store: ObjectStore, prefix: str, benchmark: Benchmark, scoring: Scoring, *, seed: int
) -> Rescored:
    """Score the responses of the evaluation at `prefix` again, with the present metrics. Nothing is generated.

    The number of missing samples comes from the evaluation's scores.json, since its responses do not show it.

    Raises:
        InputError: the evaluation has no responses, or a line cannot be parsed.
    """
    keys = [entry.key for entry in store.list(f"{prefix}/{FOLDER}")]
    parts = dict(zip(keys, concurrently(store.get, keys), strict=True))
    if not parts:
        raise InputError(f"{store.uri(prefix)} holds no responses.", remedy="Name an evaluation, evaluations/...")
    responses: dict[Condition, list[Response]] = {}
    for key, data in parts.items():
        condition = _condition(key)
        judged = (_judged(line, origin, benchmark, scoring) for origin, line in read_lines(data, key))
        responses.setdefault(condition, []).extend(judged)
    missing = _missing_before(store, prefix)
    return Rescored(rows=score_rows(benchmark, responses, missing, seed=seed), responses=responses)


def rescore_file(file: Path, benchmark: Benchmark, samples: Samples, scoring: Scoring, *, seed: int) -> Rescored:
    """Score a JSONL file with lines of {"id", "response"} against the benchmark's samples.

    A sample without a response counts as missing. The accuracy is over the answered samples.

    Raises:
        InputError: the file cannot be read, or a line is wrong, names an unknown sample, or repeats an id.
    """
    asked = {
        sample.id: Asked(skill=sample.skill, unit=sample.unit, question=sample.question, target=sample.target)
        for sample in samples.samples
    }
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.", remedy="Name a JSONL file.") from None
    responses: dict[str, Response] = {}
    for origin, line in read_lines(data, str(file)):
        response = _foreign(line, origin, asked, benchmark, scoring)
        if response.id in responses:
            raise InputError(f"{origin}: id = {response.id!r} was answered before.", remedy="Keep one line per id.")
        responses[response.id] = response
    if not responses:
        raise InputError(f"{file} holds no response.", remedy='Write a line {"id": ..., "response": ...} per sample.')
    unanswered = [
        Missing(id=sample.id, skill=sample.skill, reason="no-response")
        for sample in samples.samples
        if sample.id not in responses
    ]
    judged: dict[Condition, list[Response]] = {"actual": list(responses.values())}
    rows = score_rows(benchmark, judged, [*samples.missing, *unanswered], seed=seed)
    return Rescored(rows=rows, responses=judged)


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


def _judged(line: Line, origin: str, benchmark: Benchmark, scoring: Scoring) -> Response:
    target = parse_target(line.get("target"), origin=origin)
    judged = score_response(_field(line, "response", origin), target, benchmark.metric)
    kept = {name: value for name, value in line.items() if name != "understood"}  # schema version 1 of `parsed`
    try:
        return Response(**{**kept, **judged.stored(scoring)})
    except TypeError as error:
        raise InputError(f"{origin} is no line of responses: {error}.", remedy="Run the evaluation again.") from None


def _foreign(line: Line, origin: str, asked: Mapping[str, Asked], benchmark: Benchmark, scoring: Scoring) -> Response:
    identity = str(line.get("id"))
    if identity not in asked:
        raise InputError(
            f"{origin}: id = {identity!r} is no sample of {benchmark.name}.",
            remedy=f"Use the benchmark's ids, e.g. {next(iter(asked))!r}.",
        )
    sample = asked[identity]
    text = _field(line, "response", origin)
    judged = score_response(text, sample.target, benchmark.metric)
    return Response(
        id=identity,
        skill=sample.skill,
        unit=sample.unit,
        question=sample.question,
        images=[],
        response=text,
        answer=sample.target.shown(),
        target=sample.target.to_json(),
        **judged.stored(scoring),
    )


def _field(line: Line, name: str, origin: str) -> str:
    value = line.get(name)
    if not isinstance(value, str):
        raise InputError(f"{origin}: {name} = {value!r} is no text.", remedy='Write {"id": ..., "response": "..."}.')
    return value


def _condition(key: str) -> Condition:
    name = key.rsplit("/", 1)[-1].split("-", 1)[0]
    known: tuple[Condition, ...] = get_args(Condition)
    for condition in known:
        if condition == name:
            return condition
    raise InputError(f"{key} belongs to no condition; conditions: {', '.join(known)}.", remedy="Delete the object.")


def _missing_before(store: ObjectStore, prefix: str) -> list[Missing]:
    key = f"{prefix}/scores.json"
    if store.stat(key) is None:
        return []
    rows = load_rows(Form.SCORES, "scores", store.get(key), store.uri(key))
    return [
        Missing(id="", skill=row["skill"], reason="before")
        for row in rows
        if row.get("aggregation") is None
        for _ in range(row.get("missing", 0))
    ]
