"""Selects a few answers for the report: right, wrong and unparsed ones of each skill, with thumbnails."""

import base64
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark
from components.evaluation.readers.benchmark_reader import BenchmarkSample
from mantis.artifacts.responses import Response
from mantis.generation.sample_images import Picture
from mantis.images.formats import open_image

EACH = 2
EDGE = 160  # largest number of pixels of a thumbnail's longer edge
QUALITY = 80


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
                "images": [_data_uri(picture) for picture in sample.pictures],
            }
        )
    order = list(benchmark.skills)
    return sorted(shown, key=lambda item: (order.index(item["skill"]), not item["correct"]))


def _data_uri(picture: Picture) -> str:
    buffer = BytesIO()
    with open_image(picture.load()) as image:
        small = image.convert("RGB")
        small.thumbnail((EDGE, EDGE))
        small.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
