"""Peak memory of a process that reads Parquet files of every kind: at most 1 GB."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LIMIT = 1_000_000_000  # bytes
SCRIPT = """
import json, sys
from pathlib import Path
from components.data.prepare.conversation_rules import ConversationRules
from components.data.sources.find import open_source
from components.data.sources.rejection import RowRejected
from mantis.errors import InputError

rules = ConversationRules(max_images=None, max_turn_characters=65_536, ignore=frozenset())
found = {}
try:
    source = open_source(sys.argv[1], "raw")
    for raw in source.rows.read(lambda _: True):
        try:
            rules.check("name", source.reader.read(raw))
            reason = "kept"
        except RowRejected as refusal:
            reason = refusal.reason
        found[reason] = found.get(reason, 0) + 1
except InputError as error:
    found[str(error)] = 1
# Not ru_maxrss, which a process inherits from the one that started it.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps({"rows": found, "peak": 1024 * int(peak.split()[1])}))
"""


def measured(folder: Path, table: pa.Table, **options: Any) -> dict[str, int]:
    """Read the table as a source in a process of its own. Returns rows by their result."""
    (folder / "raw").mkdir()
    pq.write_table(table, folder / "raw" / "train-0.parquet", **options)
    run = [sys.executable, "-c", SCRIPT, str(folder / "raw")]
    found = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert found["peak"] < LIMIT, found
    rows: dict[str, int] = found["rows"]
    return rows


def table_of(images: Any, texts: list[str] | pa.Array, rows: int) -> pa.Table:
    """Rows with `images`, and one question and answer each from `texts`."""
    roles = pa.array(["user", "assistant"] * rows)
    turns = pa.StructArray.from_arrays([roles, texts], ["role", "content"])
    conversations = pa.ListArray.from_arrays(pa.array(range(0, 2 * rows + 1, 2), pa.int32()), turns)
    return pa.table({"id": [str(row) for row in range(rows)], "images": images, "conversation": conversations})


def images_of(data: Any, rows: int, per_row: int) -> pa.Array:
    paths = pa.array([f"{number}.jpg" for number in range(rows * per_row)])
    entries = pa.StructArray.from_arrays([data, paths], ["bytes", "path"])
    return pa.ListArray.from_arrays(pa.array(range(0, rows * per_row + 1, per_row), pa.int32()), entries)


def one_value(value: Any, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def texts_of(rows: int) -> pa.Array:
    return pa.array(["Which?", "This."] * rows)


def test_a_text_of_100_mb_that_40_rows_repeat(tmp_path: Path) -> None:
    images = pa.array([[]] * 40, pa.list_(pa.string()))
    table = table_of(images, one_value("a" * 100_000_000, 80), 40)
    assert measured(tmp_path, table, compression="zstd") == {"row-bytes": 40}


@pytest.mark.parametrize(("rows", "per_row", "size"), [(64, 24, 1_500_000), (60, 1, 36_000_000)])
def test_images_of_over_2_gib_that_a_file_of_3_kb_repeats(tmp_path: Path, rows: int, per_row: int, size: int) -> None:
    images = images_of(one_value(b"\xff\xd8" + bytes(size), rows * per_row), rows, per_row)
    assert measured(tmp_path, table_of(images, texts_of(rows), rows), compression="zstd") == {"kept": rows}


def test_a_row_with_a_million_images(tmp_path: Path) -> None:
    images = images_of(one_value(bytes(1_000_000), 3_000_000), 3, 1_000_000)
    assert measured(tmp_path, table_of(images, texts_of(3), 3), compression="zstd") == {"row-bytes": 3}


@pytest.mark.parametrize("dictionary", [True, False])
def test_different_images_in_one_page_of_150_mb(tmp_path: Path, dictionary: bool) -> None:
    generator = np.random.default_rng(0)
    data = pa.array([generator.bytes(1_500_000) for _ in range(100)], pa.binary())
    table = table_of(images_of(data, 25, 4), texts_of(25), 25)
    assert measured(tmp_path, table, use_dictionary=dictionary) == {"kept": 25}


def test_rows_of_100_mb_each(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = pa.array([generator.bytes(1_000_000) for _ in range(300)], pa.binary())
    table = table_of(images_of(data, 3, 100), texts_of(3), 3)
    assert measured(tmp_path, table, use_dictionary=False, row_group_size=1) == {"kept": 3}


def test_a_page_of_400_mb_is_refused_with_the_way_to_write_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    data = pa.array([generator.bytes(4_000_000) for _ in range(100)], pa.binary())
    table = table_of(images_of(data, 100, 1), texts_of(100), 100)
    ((reason, _),) = measured(tmp_path, table, use_dictionary=False).items()
    assert "column images.list.element.bytes: a page of 3" in reason
    assert "row_group_size=16" in reason
