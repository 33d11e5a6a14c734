"""Which rows of a Parquet file are read whole."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.sources.files.parquet_rows import PARQUET
from components.data.sources.rows.row_reader import RowReader
from mantis.store import parquet_file
from mantis.store.local import LocalStore

ROWS, GROUP, FILES = 10, 4, 2


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_wanted_row_is_read_whole_wherever_it_stands_in_its_row_group(
    local_store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(parquet_file, "GROUPS_AT_ONCE", at_once)
    for number in range(FILES):
        rows = [{"id": f"{number}-{row}", "query": f"Question {row}?", "response": "Answer."} for row in range(ROWS)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=GROUP)
        local_store.put_file(f"raw/{number}.parquet", tmp_path / "rows.parquet")
    source = PARQUET.open(local_store, list(local_store.list("raw")), RowReader())
    for only in range(ROWS * FILES):
        read = list(source.read(only.__eq__))
        assert [row["id"] for row in read] == [f"{number}-{row}" for number in range(FILES) for row in range(ROWS)]
        assert read[only]["query"] == f"Question {only % ROWS}?"
        pass_of = [row for row, content in enumerate(read) if "query" in content]
        assert len(pass_of) <= GROUP * at_once, "row groups without a wanted row are not read whole"
