"""A hostile Parquet file needs no more memory than an honest one, and costs its own rows alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, load_benchmark
from components.evaluation.readers.benchmark_reader import read_benchmark
from mantis.errors import InputError
from tests.fixtures.data import encoded
from tests.fixtures.own_benchmark import YAML
from tests.helpers.paths import ROOT

MEASURED = """
import resource, sys
from pathlib import Path
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.readers.benchmark_reader import read_benchmark
from mantis.errors import InputError
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_benchmark(Path(sys.argv[1]), load_benchmark("q-bench2"), spool=Path(sys.argv[1]))
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def row(number: int, **changed: Any) -> dict[str, Any]:
    image = {"bytes": encoded(), "path": "a.jpg"}
    return {"id": number, "image1": image, "image2": image, "question": "Which is clearer?", "option0": "First",
            "option1": "Second", "option2": "N/A", "option3": "N/A", "question_type": 0, "question_concern": 1,
            "correct_choice": "A"} | changed  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]], **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **more)


def own(folder: Path) -> Benchmark:
    (folder / "pets").mkdir()
    (folder / "pets.yaml").write_text("layout: parquet\nfiles: [test.parquet]\n" + YAML)
    return load_benchmark(str(folder / "pets.yaml"))


def test_a_bomb_is_refused_and_costs_no_memory(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(number) for number in range(40)])
    bomb = "x" * (160 << 20)  # once in the dictionary of the file, and in 30 rows
    questions = pa.DictionaryArray.from_arrays(pa.array([0] * 10 + [1] * 30, pa.int32()), ["Which?", bomb])
    table = table.set_column(table.schema.get_field_index("question"), "question", questions)
    file = tmp_path / "data/dev-00000-of-00001.parquet"
    file.parent.mkdir()
    # Without Arrow's schema, readers see a column of strings.
    pq.write_table(table, file, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    del table, questions, bomb
    assert file.stat().st_size < 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    problem, grown = done.stdout.splitlines()
    assert "dev-00000-of-00001.parquet: column question: a page of 160 MiB" in problem
    assert int(grown) < 200_000  # KiB


def test_a_row_that_is_too_large_is_missing(tmp_path: Path) -> None:
    small, large = ({"bytes": data, "path": "a.jpg"} for data in (encoded(), bytes(30_000_000)))
    plain = {"question": "Which?", "question_type": "short-answer", "options": [], "answer": "red"}
    rows = [plain | {"id": "s1", "images": [small]}, plain | {"id": "s2", "images": [large] * 6}]
    write(tmp_path / "mantis_eval/test-00000-of-00001.parquet", rows)
    made = read_benchmark(tmp_path, load_benchmark("mantis-eval"), spool=tmp_path)
    assert [sample.id for sample in made.samples] == ["s1"]
    assert [each.reason for each in made.missing] == ["row-too-large"]


def test_text_that_is_not_utf8_is_missing(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(0), row(1)])
    broken = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    table = table.set_column(table.schema.get_field_index("question"), "question", broken)
    file = tmp_path / "data/dev-00000-of-00001.parquet"
    file.parent.mkdir()
    pq.write_table(table, file)
    made = read_benchmark(tmp_path, load_benchmark("q-bench2"), spool=tmp_path)
    assert [sample.id for sample in made.samples] == ["0"]
    assert [each.reason for each in made.missing] == ["text-not-utf8"]


def test_an_image_beyond_the_limit_is_missing(tmp_path: Path) -> None:
    large = {"bytes": bytes(33_000_000), "path": "a.jpg"}
    write(tmp_path / "data/dev-00000-of-00001.parquet", [row(0), row(1, image2=large)])
    made = read_benchmark(tmp_path, load_benchmark("q-bench2"), spool=tmp_path)
    assert [each.reason for each in made.missing] == ["image-unreadable"]


def test_a_wrong_row_of_ones_own_is_an_error(tmp_path: Path) -> None:
    benchmark = own(tmp_path)
    rows = [{"id": "1", "skill": "compare", "question": "Q?", "images": [{"bytes": encoded(), "path": "a"}],
             "options": ["yes", "no"], "answer": "A"}]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    broken = pa.array([b"\xff"], pa.binary()).view(pa.string())
    table = table.set_column(table.schema.get_field_index("question"), "question", broken)
    pq.write_table(table, tmp_path / "pets/test.parquet")
    with pytest.raises(InputError, match=r"test.parquet, row 0 cannot be read: text-not-utf8"):
        read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path)


def test_row_groups_without_a_row_of_the_benchmark_are_not_read(tmp_path: Path) -> None:
    rows = [
        {"question_id": f"{kind}_0", "question_type_id": kind, "question": "Q?", "choice_a": "a", "choice_b": "b",
         "choice_c": "c", "choice_d": "d", "answer": "A", "image": [{"bytes": encoded(), "path": "a"}]}
        for kind in (5, 17)
    ]  # fmt: skip
    file = tmp_path / "data/test-00000-of-00001.parquet"
    write(file, rows, row_group_size=1, compression="none", use_dictionary=False)
    raw = bytearray(file.read_bytes())
    start = raw.index(encoded())
    raw[start : start + 40] = bytes(40)  # the image of the other task
    file.write_bytes(raw)
    (sample,) = read_benchmark(tmp_path, load_benchmark("seed-bench-2"), spool=tmp_path).samples
    assert json.dumps(sample.id) == '"17_0"'
