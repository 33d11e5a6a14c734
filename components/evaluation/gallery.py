"""Selects a few answers for the report: right, wrong and unparsed ones of each skill, with thumbnails."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.readers.benchmark_reader import BenchmarkSample
from mantis.artifacts.responses import Response
from mantis.images.thumbnails import thumbnail

EACH = 2


def gallery(
    benchmark: Benchmark, samples: Sequence[BenchmarkSample], responses: Sequence[Response]
) -> list[dict[str, Any]]:
    """Select the first EACH right, wrong and unparsed answers of every skill. Images are JPEG data URIs."""
    taken: Counter[tuple[str, bool, bool]] = Counter()
    shown = []
    for sample, response in zip(samples, responses, strict=True):
        kind = (sample.skill, response.correct, response.parsed)
        if taken[kind] == EACH:
            continue
        taken[kind] += 1
        shown.append(
            {
                "benchmark": benchmark.name,
                "skill": sample.skill,
                "label": benchmark.skills[sample.skill].label,
                "id": sample.id,
                "question": sample.question,
                "options": list(sample.options),
                "answer": response.answer,
                "response": response.response,
                "correct": response.correct,
                "parsed": response.parsed,
                "images": [thumbnail(picture.load()) for picture in sample.pictures],
            }
        )
    order = list(benchmark.skills)
    return sorted(shown, key=lambda item: (order.index(item["skill"]), not item["correct"]))
