"""Reads Parquet rows that name videos, and gives evenly spaced frames of each.

The videos lie unpacked or in archives.
"""

from collections.abc import Iterator
from pathlib import Path

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, BenchmarkVideo
from components.evaluation.readers import parquet_reader
from components.evaluation.readers.media import Media
from components.evaluation.readers.mvbench_reader import frames_of_video
from components.evaluation.readers.raw import Raw

FRAMES = "frames"  # the column that is added


def raw_rows(
    folder: Path, files: tuple[str, ...], benchmark: Benchmark, video: BenchmarkVideo, *, pictures: bool
) -> Iterator[Raw]:
    """Yield every row with its frames as images, encoded as JPEG. The frames of a video are kept for the next row.

    Raises:
        InputError: as in `parquet_reader.raw_rows`.
    """
    media = Media(folder)
    tables = tuple(name for name in files if name.endswith(".parquet"))
    plain = benchmark.fields.model_copy(
        update={"images": (), "details": {**benchmark.fields.details, FRAMES: video.column}}
    )
    last: tuple[str, list[bytes], str] = ("", [], "")
    for raw in parquet_reader.raw_rows(
        folder, tables, benchmark.model_copy(update={"fields": plain}), pictures=pictures
    ):
        if not pictures or not raw.row:
            yield raw
            continue
        path = video.path.replace("{}", str(raw.row[video.column]))
        if path != last[0]:  # several questions are about one video
            last = (path, *frames_of_video(media, path, count=video.frames, bound=None))
        yield Raw(origin=raw.origin, row={**raw.row, FRAMES: last[1]}, missing=last[2])
