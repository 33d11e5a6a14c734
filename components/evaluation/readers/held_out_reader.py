"""Makes a benchmark of the rows that a model's mixture kept out of training (`data.holdout`).

A sample is the first exchange of a row: the user's first turn is asked, and the assistant's first turn is expected.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, Fields, Skill
from components.evaluation.profiles.prompt_template import Prompt
from components.evaluation.readers.benchmark_reader import BenchmarkSample, Missing, Samples
from components.evaluation.readers.benchmark_source import BenchmarkSource
from components.evaluation.scoring.targets import Target
from mantis.artifacts.held_out import BENCHMARK, HeldOutRow, held_out_rows, mixture_of
from mantis.artifacts.manifest import Manifest
from mantis.config.evaluation_settings import DEFAULT_PROFILE
from mantis.errors import InputError
from mantis.generation.sample_images import spooled_picture
from mantis.models.conversation import IMAGE_MARK
from mantis.progress import Progress
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table

NEW_TOKENS = 256  # answers of conversations are longer than those of benchmarks
EXCHANGE = 2  # turns
ROWS_AT_ONCE = 16  # few, since memory holds their images


def held_out_mixture(store: ObjectStore, model: Manifest) -> tuple[Manifest, list[HeldOutRow]]:
    """Find the mixture that the model was trained on, and its held-out rows.

    Raises:
        InputError: the store does not have the mixture, or it kept no rows out.
    """
    mixture = mixture_of(store, model)
    rows = held_out_rows(store, mixture)
    if not rows:
        raise InputError(
            f"The mixture of {store.uri(model.key)} keeps no rows out of training.",
            remedy="Set data.holdout = 0, or train with data.holdout.",
        )
    return mixture, rows


def held_out_benchmark(rows: Sequence[HeldOutRow]) -> Benchmark:
    """Describe the benchmark of these rows. Each subset is a skill."""
    subsets = dict.fromkeys(row.subset for row in rows)
    return Benchmark(
        name=BENCHMARK,
        title="Held-out rows",
        split="held out",
        fields=Fields(options=None),
        kind="short",
        metric="text-overlap",
        aggregation="micro",
        profile=DEFAULT_PROFILE,
        prompts={DEFAULT_PROFILE: Prompt(templates={"short": "{question}"}, max_new_tokens=NEW_TOKENS)},
        skills={subset: Skill(label=subset, chance=0.0) for subset in subsets},
    )


@contextmanager
def open_held_out_source(
    store: ObjectStore, mixture: Manifest, rows: Sequence[HeldOutRow]
) -> Iterator[BenchmarkSource]:
    """Open the held-out rows as a source of samples. Its images can be read until the context ends."""
    with tempfile.TemporaryDirectory(prefix="mantis-held-out-") as temporary:
        yield BenchmarkSource(
            identity={"held_out": mixture.fingerprint},
            read=lambda: read_held_out(store, mixture, rows, Path(temporary)),
        )


def read_held_out(store: ObjectStore, mixture: Manifest, rows: Sequence[HeldOutRow], spool: Path) -> Samples:
    """Read the first exchange of every row. Images are written to the folder `spool`.

    A row whose image cannot be decoded any more is missing.
    """
    by_subset: dict[str, list[HeldOutRow]] = {}
    for row in rows:
        by_subset.setdefault(row.subset, []).append(row)
    progress = Progress(label="Reading held-out rows", total=len(rows), unit="samples")
    samples: list[BenchmarkSample] = []
    missing: list[Missing] = []
    spool.mkdir(parents=True, exist_ok=True)
    for subset, wanted in by_subset.items():
        for content in _rows(store, mixture, subset, wanted):
            made = _sample(subset, content, spool)
            if isinstance(made, BenchmarkSample):
                samples.append(made)
            else:
                missing.append(made)
            progress.advance()
    return Samples(samples=samples, missing=missing)


def _rows(
    store: ObjectStore, mixture: Manifest, subset: str, wanted: Sequence[HeldOutRow]
) -> Iterator[Mapping[str, Any]]:
    table = open_table(store, f"{mixture.inputs[subset].key}/data.lance")
    for start in range(0, len(wanted), ROWS_AT_ONCE):
        places = [row.row for row in wanted[start : start + ROWS_AT_ONCE]]
        yield from table.take(places, columns=["id", "contents", "images"]).to_pylist()


def _sample(subset: str, row: Mapping[str, Any], spool: Path) -> BenchmarkSample | Missing:
    identity = f"{subset}/{row['id']}"
    question, answer = row["contents"][:EXCHANGE]
    shown = row["images"][: question.count(IMAGE_MARK)]
    try:
        pictures = tuple(spooled_picture(data, f"{identity}/{place}", spool) for place, data in enumerate(shown, 1))
    except OSError:
        return Missing(id=identity, skill=subset, reason="image-unreadable")
    return BenchmarkSample(
        id=identity,
        skill=subset,
        unit=identity,
        question=question,
        prompt=question,
        pictures=pictures,
        target=Target(kind="short", answers=(answer,)),
    )
