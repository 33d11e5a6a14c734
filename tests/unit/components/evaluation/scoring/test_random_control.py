"""A control that guesses is above chance in at most 0.2 % of runs, for every aggregation and unit that exists here."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from components.evaluation import aggregate
from components.evaluation.aggregate import score_rows
from components.evaluation.benchmarks.benchmark_catalog import Benchmark, load_benchmark
from components.evaluation.benchmarks.guesses import valid_answers
from components.evaluation.sample_units import SampleChances, cluster_of_each_unit
from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import LETTERS, Target
from mantis.artifacts.responses import CORRECT, Response
from mantis.artifacts.scores import suspicious_controls

SEED = 20
RUNS = 500  # of each kind
ALLOWED = 0.002
SKILLS, UNITS = 3, 24  # skills of a benchmark, units of each


def options(number: int) -> Target:
    """Two to five options in turn."""
    count = 2 + number % 4
    texts = tuple(f"option {place}" for place in range(count))
    return Target(kind="multiple-choice", options=texts, answers=(LETTERS[number % count],))


def some_open(number: int) -> Target:
    return Target(kind="short", answers=("42",)) if number % 3 == 0 else options(number)


def yes_or_no(number: int) -> Target:
    yes = (10, 8, 5, 0)[number % 4]  # people who say yes; with 8 or 5, both answers score
    return Target(kind="short", answers=("yes",) * yes + ("no",) * (10 - yes))


def texts(number: int) -> Target:
    colours = ("red", "blue", "green", "grey")
    return Target(kind="short", options=colours, answers=(colours[number % 4],))


def of_mirb(number: int) -> Target:
    answer = ("yes", "no")[number % 2]
    return Target(kind="short", answers=(answer,), details={"subset": "analogy"})


# Benchmark, what replaces its fields, the targets, and the samples of a unit.
KINDS: dict[str, tuple[str, dict[str, Any], Callable[[int], Target], int]] = {
    "macro, samples": ("blink", {}, options, 1),
    "macro, units of 2": ("blink", {}, options, 2),
    "micro, samples": ("mvbench", {}, options, 1),
    "micro, units of 4": ("mmbench", {}, options, 4),
    "micro, some open": ("mmmu", {}, some_open, 1),
    "micro, partial credit": ("vqav2", {"skills": ["yes/no"]}, yes_or_no, 1),
    "none, texts": ("demo-multi", {}, texts, 1),
    "grouped, guesses": ("mirb", {"skills": ["analogy", "attribute"]}, of_mirb, 1),
}


def samples_of(benchmark: Benchmark, skills: list[str], target: Callable[[int], Target], size: int) -> Iterator[Any]:
    """For each sample: the responses that a guess may give, already scored."""
    for skill in skills:
        for unit in range(UNITS):
            for turn in range(size):
                aim = target(unit + turn)
                yield [
                    scored(benchmark, f"{skill}-{unit}-{turn}", skill, f"{skill}-{unit}", aim, guess)
                    for guess in valid_answers(aim, "?", benchmark.skills[skill]) or ("no idea",)
                ]


def scored(benchmark: Benchmark, name: str, skill: str, unit: str, target: Target, text: str) -> Response:
    score = score_response(text, target, benchmark.metric).official
    return Response(
        id=name, skill=skill, unit=unit, question="?", images=[], response=text, answer="", target=target.to_json(),
        official=score, strict=score, score=score, correct=score >= CORRECT, parsed=True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_that_guesses_is_rarely_above_chance(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changed, target, size = KINDS[kind]
    benchmark = load_benchmark(name)
    skills = changed.get("skills") or list(benchmark.skills)[:SKILLS]
    if name == "demo-multi":  # whose skills have chances of their own
        four = {skill: benchmark.skills[skill].model_copy(update={"chance": 0.25}) for skill in skills}
        benchmark = benchmark.model_copy(update={"skills": four})
    samples = list(samples_of(benchmark, skills, target, size))
    same_in_all_runs(monkeypatch, benchmark, [guesses[0] for guesses in samples])
    rng = np.random.default_rng(SEED)
    found = 0
    for _ in range(RUNS):
        places = (rng.random(len(samples)) * [len(guesses) for guesses in samples]).astype(int)
        given = [guesses[place] for guesses, place in zip(samples, places, strict=True)]
        found += bool(suspicious_controls(score_rows(benchmark, {"actual": given, "blind": given}, [], seed=0)))
    print(f"{kind}: {found} of {RUNS} runs with seed {SEED} have a control above chance")
    assert found / RUNS <= ALLOWED


def same_in_all_runs(monkeypatch: pytest.MonkeyPatch, benchmark: Benchmark, responses: list[Response]) -> None:
    """Compute once what no response changes: chances, clusters, and the intervals, which this test does not read."""
    chances, clusters = SampleChances(benchmark), cluster_of_each_unit(responses)
    monkeypatch.setattr(aggregate, "SampleChances", lambda _: chances)
    monkeypatch.setattr(aggregate, "cluster_of_each_unit", lambda _: clusters)
    monkeypatch.setattr(aggregate, "stratified_interval", lambda *_, **__: (0.0, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_that_knows_the_answers_is_above_chance(kind: str) -> None:
    name, changed, target, size = KINDS[kind]
    benchmark = load_benchmark(name)
    skills = changed.get("skills") or list(benchmark.skills)[:SKILLS]
    samples = list(samples_of(benchmark, skills, target, size))
    given = [max(guesses, key=lambda guess: guess.score) for guesses in samples]
    assert suspicious_controls(score_rows(benchmark, {"actual": given, "blind": given}, [], seed=0))
