import os
from pathlib import Path
from typing import Any

import pytest

from mantis.dataset.row_cache import RowCache

ROW = {"id": "a", "contents": ["hello"], "images": [b"x" * 1000], "widths": [3]}


class Table:
    """Counts what is read of it."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, numbers: list[int]) -> list[dict[str, Any]]:
        self.asked += numbers
        return [ROW | {"id": str(number)} for number in numbers]


@pytest.fixture
def table() -> Table:
    return Table()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_read_is_not_read_again(tmp_path: Path, table: Table) -> None:
    first = RowCache(tmp_path, limit=10**6).rows("here", [3, 1], table.read)
    again = RowCache(tmp_path, limit=10**6).rows("here", [1, 2, 3], table.read)
    assert table.asked == [3, 1, 2]
    assert first == {3: ROW | {"id": "3"}, 1: ROW | {"id": "1"}}
    assert list(again) == [1, 2, 3]
    assert again[3] == first[3]
    RowCache(tmp_path, limit=10**6).rows("elsewhere", [1], table.read)
    assert table.asked[-1] == 1


def test_without_a_size_nothing_is_kept(tmp_path: Path, table: Table) -> None:
    cache = RowCache(tmp_path, limit=0)
    assert cache.rows("here", [1], table.read) == cache.rows("here", [1], table.read)
    assert table.asked == [1, 1]
    assert not files(tmp_path)


def test_it_stays_within_its_size_and_forgets_what_was_used_longest_ago(tmp_path: Path, table: Table) -> None:
    RowCache(tmp_path / "one", limit=10**6).rows("here", [0], table.read)
    size = files(tmp_path / "one")[0].stat().st_size
    cache = RowCache(tmp_path / "many", limit=20 * size)
    for number in range(100):
        cache.rows("here", [number], table.read)
        cache.rows("here", [0], table.read)  # always in use
        names = files(tmp_path / "many")
        for age, path in enumerate(sorted(names, key=lambda path: int(path.name), reverse=True)):
            if path.name != "0":
                os.utime(path, (1e9 - age, 1e9 - age))  # the order in which they came, whatever the clock's steps
        assert sum(path.stat().st_size for path in names) <= 21 * size
    assert table.asked.count(0) == 2
    kept = {int(path.name) for path in files(tmp_path / "many")}
    assert {0, 99} <= kept
    assert 1 not in kept


def test_a_damaged_row_is_read_from_the_store(tmp_path: Path, table: Table) -> None:
    cache = RowCache(tmp_path, limit=10**6)
    whole = cache.rows("here", [1], table.read)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    assert cache.rows("here", [1], table.read) == whole
    assert table.asked == [1, 1]
    assert cache.rows("here", [1], table.read) == whole
    assert table.asked == [1, 1]
