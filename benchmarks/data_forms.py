"""Read the same conversations in every form of files and rows, with the JSON list as peer.

Reading is everything before an image is decoded: parse the row, find its form, check the conversation, get its images.
"""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import form_writers
from benchmarks.form_writers import Images, Write
from benchmarks.real import conversations_folder, raw_rows, unique
from benchmarks.rows import Row

logger = logging.getLogger(__name__)

SIZES = {False: 300, True: 2000}  # conversations
REPEATS = 5
GOAL = ">=0.8"
MAX_BYTES = 32_000_000


def _measure(name: str, write: Write, full: bool) -> Row:
    """Measure conversations per second of CPU time, alternating with the JSON list; files are in the page cache."""
    rows, images = _conversations(SIZES[full])
    with tempfile.TemporaryDirectory() as scratch:
        places = {"peer": Path(scratch) / "peer", "ours": Path(scratch) / "ours"}
        form_writers.json_list(places["peer"], rows, images)
        write(places["ours"], rows, images)
        seconds: dict[str, list[float]] = {"peer": [], "ours": []}
        for round_ in range(REPEATS + 1):
            for who, place in places.items():
                logger.info("%s, round %d of %d: %s", name, round_, REPEATS, who)
                taken, size = _read(place)
                if size != sum(map(len, images.values())):
                    raise RuntimeError(f"{place} gave {size} bytes of images")
                if round_:  # the first round fills the page cache
                    seconds[who].append(taken)
    rates = {who: len(rows) / statistics.median(taken) for who, taken in seconds.items()}
    return Row(
        name=name,
        peer=rates["peer"],
        ours=rates["ours"],
        ratio=rates["ours"] / rates["peer"],
        unit="conversations/s of CPU time",
        goal=GOAL,
        details={
            "peer": "a JSON list with image files beside it",
            "limit": "parsing rows and copying image bytes; to decode one image costs more than both",
            "conversations": len(rows),
            "image_mb": sum(map(len, images.values())) / 1e6,
        },
    )


def _conversations(count: int) -> tuple[list[form_writers.Row], Images]:
    """Return `count` conversations, whose images have names and bytes of their own."""
    folder = conversations_folder()
    real = raw_rows()
    rows: list[form_writers.Row] = []
    images: dict[str, bytes] = {}
    for number in range(count):
        row = real[number % len(real)]
        names = [f"images/{number}-{place}.jpg" for place in range(len(row["images"]))]
        for name, path in zip(names, row["images"], strict=True):
            images[name] = unique((folder / path).read_bytes(), len(images))
        rows.append({"id": str(number), "images": names, "conversation": row["conversation"]})
    return rows, images


def _read(place: Path) -> tuple[float, int]:
    """Return the seconds of CPU time to read every row and its images, and the bytes of the images."""
    from components.data.prepare.conversation_rules import ConversationRules
    from components.data.sources.find import open_source

    source = open_source(str(place), place.name)
    rules = ConversationRules(max_images=None, max_turn_characters=1_000_000, ignore=frozenset())
    size = 0
    start = time.process_time()
    for number, raw in enumerate(source.rows.read(lambda _: True)):
        row = source.reader.read(raw)
        rules.check(str(number), row)
        for image in row.images:
            data = source.images.read(image.path, max_bytes=MAX_BYTES) if image.data is None else image.data
            size += len(data)
    return time.process_time() - start, size


def _as_lines(convert: Callable[[form_writers.Row, Images], form_writers.Row]) -> Write:
    """Write rows of another form as JSON Lines, with image files beside them."""

    def write(folder: Path, rows: form_writers.Rows, images: Images) -> None:
        form_writers.write_images(folder, images)
        (folder / "train.jsonl").write_text("".join(json.dumps(convert(row, images)) + "\n" for row in rows))

    return write


json_lines = partial(_measure, "data.read.json-lines", form_writers.json_lines)
json_object = partial(_measure, "data.read.json-object", form_writers.json_object)
parquet = partial(_measure, "data.read.parquet", form_writers.parquet_any_name)
parquet_small_groups = partial(_measure, "data.read.parquet-small-groups", form_writers.parquet_in_small_groups)
parquet_dictionaries = partial(_measure, "data.read.parquet-dictionaries", form_writers.parquet_with_dictionaries)
arrow = partial(_measure, "data.read.arrow", form_writers.arrow)
webdataset = partial(_measure, "data.read.webdataset", form_writers.webdataset)
messages = partial(_measure, "data.read.messages", _as_lines(form_writers.as_trl))
query = partial(_measure, "data.read.query", _as_lines(form_writers.as_query))
instruction = partial(_measure, "data.read.instruction", _as_lines(form_writers.as_instruction))
texts = partial(_measure, "data.read.texts", _as_lines(form_writers.as_texts))
completion = partial(_measure, "data.read.completion", _as_lines(form_writers.as_completion))
