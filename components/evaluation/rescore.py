"""Scores existing responses: those of an evaluation in a store, or a JSONL file with ids and responses."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

from components.evaluation.aggregate import marked_as_sample, score_rows
from components.evaluation.answer_file import GivenAnswer, read_lines, text_field
from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.controls import Condition
from components.evaluation.readers.benchmark_reader import Missing, Samples
from components.evaluation.scoring.score_response import Scoring, score_response
from components.evaluation.scoring.targets import Target, parse_target
from components.evaluation.stratified_sample import population, stratified
from mantis.artifacts.responses import FOLDER, Response
from mantis.artifacts.scores import Score
from mantis.errors import InputError
from mantis.schema_versions import Form, load_rows
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
    cluster: str
    paths: tuple[str, ...]
    question: str
    target: Target


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the search for reference cycles: it costs a third of the time, and lines and responses have none."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@_collector_paused()
def rescore_evaluation(
    store: ObjectStore, prefix: str, benchmark: Benchmark, scoring: Scoring, *, seed: int
) -> Rescored:
    """Score the responses of the evaluation at `prefix` again, with the present metrics. Nothing is generated.

    The missing samples and the conditions come from the evaluation's scores.json, since its responses do not show them.

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
    before = _rows_before(store, prefix)
    missing = [
        Missing(id="", skill=row["skill"], reason="before")
        for row in before
        if row.get("aggregation") is None
        for _ in range(row.get("missing", 0))
    ]
    conditions = {**(before[0].get("conditions") or {} if before else {}), "scoring": scoring}
    rows = score_rows(benchmark, responses, missing, seed=seed, conditions=conditions)
    drawn_from = {row["skill"]: row["drawn_from"] for row in before if row.get("drawn_from") is not None}
    if drawn_from:
        rows = [marked_as_sample(row, drawn_from) for row in rows]
    return Rescored(rows=rows, responses=responses)


@_collector_paused()
def rescore_file(
    answers: Sequence[GivenAnswer],
    benchmark: Benchmark,
    samples: Samples,
    scoring: Scoring,
    *,
    seed: int,
    limit: int | None = None,
) -> Rescored:
    """Score answers of another engine against the benchmark's samples, or against a stratified sample of `limit`.

    A sample without a response counts as missing. The accuracy is over the answered samples. The prompt, the
    decoding and the layout of the responses are unknown, so they are not compared with those of published results.

    Raises:
        InputError: an answer names an unknown sample, or a sample that was answered before.
    """
    drawn = stratified(samples.samples, benchmark, limit=limit, seed=seed)
    asked = {
        sample.id: Asked(
            skill=sample.skill,
            unit=sample.unit,
            cluster=sample.cluster,
            paths=sample.paths,
            question=sample.question,
            target=sample.target,
        )
        for sample in drawn
    }
    responses: dict[str, Response] = {}
    for answer in answers:
        response = _foreign(answer, asked, benchmark, scoring)
        if response.id in responses:
            raise InputError(
                f"{answer.origin}: id = {response.id!r} was answered before.", remedy="Keep one line per id."
            )
        responses[response.id] = response
    unanswered = [
        Missing(id=sample.id, skill=sample.skill, reason="no-response")
        for sample in drawn
        if sample.id not in responses
    ]
    judged: dict[Condition, list[Response]] = {"actual": list(responses.values())}
    missing = [*samples.missing, *unanswered]
    rows = score_rows(benchmark, judged, missing, seed=seed, conditions={"scoring": scoring})
    if len(drawn) < len(samples.samples):
        rows = [marked_as_sample(row, population(samples.samples)) for row in rows]
    return Rescored(rows=rows, responses=judged)


def _judged(line: Line, origin: str, benchmark: Benchmark, scoring: Scoring) -> Response:
    target = parse_target(line.get("target"), origin=origin)
    judged = score_response(text_field(line, "response", origin), target, benchmark.metric)
    fields = {**line, **judged.stored(scoring)}
    fields.pop("understood", None)  # schema version 1 of `parsed`
    try:
        return Response(**fields)
    except TypeError as error:
        raise InputError(f"{origin} is no line of responses: {error}.", remedy="Run the evaluation again.") from None


def _foreign(answer: GivenAnswer, asked: Mapping[str, Asked], benchmark: Benchmark, scoring: Scoring) -> Response:
    identity, text = answer.sample(benchmark.name), answer.response
    if identity not in asked:
        raise InputError(
            f"{answer.origin}: id = {identity!r} is no sample of {benchmark.name}.",
            remedy=f"Use the benchmark's ids, e.g. {next(iter(asked))!r}. Repeat the --limit of the export.",
        )
    sample = asked[identity]
    judged = score_response(text, sample.target, benchmark.metric)
    return Response(
        id=identity,
        skill=sample.skill,
        unit=sample.unit,
        question=sample.question,
        images=[{"path": path} for path in sample.paths],
        response=text,
        answer=sample.target.shown(),
        target=sample.target.to_json(),
        cluster=sample.cluster,
        **judged.stored(scoring),
    )


def _condition(key: str) -> Condition:
    name = key.rsplit("/", 1)[-1].split("-", 1)[0]
    known: tuple[Condition, ...] = get_args(Condition)
    for condition in known:
        if condition == name:
            return condition
    raise InputError(f"{key} belongs to no condition; conditions: {', '.join(known)}.", remedy="Delete the object.")


def _rows_before(store: ObjectStore, prefix: str) -> list[Line]:
    """The rows of the evaluation's scores.json: what its responses do not tell."""
    key = f"{prefix}/scores.json"
    if store.stat(key) is None:
        return []
    return load_rows(Form.SCORES, "scores", store.get(key), store.uri(key))
