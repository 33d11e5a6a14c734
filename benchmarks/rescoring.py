"""Score 100,000 stored responses again under both profiles, with intervals; no peer."""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random

from benchmarks.rows import Row
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.rescore import rescore_evaluation
from components.evaluation.scoring.metrics import mmmu, vqa
from components.evaluation.scoring.targets import LETTERS, Target
from mantis.artifacts.responses import Response, put_responses
from mantis.store.local import LocalStore

logger = logging.getLogger(__name__)

REPEATS = 5
GOAL = "<10"
RESPONSES = 100_000
WORDS = ("red", "blue", "dark", "left", "right", "image", "dog", "two", "because", "the", "of", "it", "is", "so")


def rescore(full: bool) -> Row:
    """Measure seconds for RESPONSES lines of three benchmarks: choices, ten-answer VQA, and both kinds of MMMU.

    `full` has no effect, because the goal is stated for this number.
    """
    shares = {"muirbench": 0.4, "vqav2": 0.4, "mmmu": 0.2}
    with tempfile.TemporaryDirectory() as name:
        store = LocalStore(Path(name))
        for benchmark, share in shares.items():
            _write(store, benchmark, round(share * RESPONSES))
        logger.info("Wrote %d responses", RESPONSES)
        seconds: dict[str, list[float]] = {benchmark: [] for benchmark in shares}
        busy: list[float] = []
        for repeat in range(REPEATS):
            processor = time.process_time()
            for benchmark in shares:
                for cached in (vqa.normalize, vqa.evalai, mmmu.normalize):
                    cached.cache_clear()  # else the second repeat would find every text in the cache
                began = time.perf_counter()
                rescore_evaluation(store, _prefix(benchmark), load_benchmark(benchmark), "official", seed=0)
                seconds[benchmark].append(time.perf_counter() - began)
            busy.append(time.process_time() - processor)
            logger.info("%d of %d: %.1f s", repeat + 1, REPEATS, sum(each[-1] for each in seconds.values()))
        size = sum(entry.size for entry in store.list("evaluations"))
    totals = [sum(run) for run in zip(*seconds.values(), strict=True)]
    ours = statistics.median(totals)
    return Row(
        name="evaluation.rescore",
        peer=None,
        ours=ours,
        ratio=ours,
        unit="s",
        goal=GOAL,
        details={
            "responses": RESPONSES,
            "megabytes_of_lines": round(size / 1e6, 1),
            "seconds_by_benchmark": {name: round(statistics.median(runs), 2) for name, runs in seconds.items()},
            "processor_seconds": round(statistics.median(busy), 2),  # of the single thread
            "seconds": [round(total, 2) for total in totals],
        },
    )


def _prefix(benchmark: str) -> str:
    return f"evaluations/model/{benchmark}/fingerprint"


def _write(store: LocalStore, name: str, number: int) -> None:
    rng = Random(name)
    benchmark = load_benchmark(name)
    make = {"muirbench": _choice, "vqav2": _vqa, "mmmu": _mmmu}[name]
    skills = list(benchmark.skills)
    lines = [_line(str(place), skills[place % len(skills)], rng, make) for place in range(number)]
    put_responses(store, _prefix(name), "actual", lines)
    store.put(f"{_prefix(name)}/scores.json", json.dumps([]).encode())


def _line(identity: str, skill: str, rng: Random, make: Callable[[Random], tuple[Target, str]]) -> Response:
    target, response = make(rng)
    return Response(
        id=identity,
        skill=skill,
        unit=identity,
        question=_text(rng, 12),
        images=[{"path": f"{identity}/1", "sha256": "0" * 64}] * 2,
        response=response,
        answer=target.shown(),
        target=target.to_json(),
        official=0.0,
        strict=0.0,
        score=0.0,
        correct=False,
        parsed=False,
    )


def _text(rng: Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def _choice(rng: Random) -> tuple[Target, str]:
    options = tuple(_text(rng, 3) for _ in range(4))
    letter = rng.choice(LETTERS[:4])
    said = rng.choice((letter, f"({letter})", options[0], f"{_text(rng, 30)}. Final Answer: {letter}", _text(rng, 20)))
    return Target(kind="multiple-choice", options=options, answers=(rng.choice(LETTERS[:4]),)), said


def _vqa(rng: Random) -> tuple[Target, str]:
    answers = tuple(rng.choices([_text(rng, 1), _text(rng, 2)], k=10))
    return Target(kind="short", answers=answers), rng.choice((answers[0], f"The {answers[0]}.", _text(rng, 8)))


def _mmmu(rng: Random) -> tuple[Target, str]:
    if rng.random() < 0.9:
        return _choice(rng)
    number = str(rng.randrange(10_000) / 100)
    return Target(kind="short", answers=(number,)), rng.choice((number, f"{_text(rng, 30)} so it is {number}"))


if __name__ == "__main__":
    print(json.dumps(asdict(rescore(full=False)), indent=1))
