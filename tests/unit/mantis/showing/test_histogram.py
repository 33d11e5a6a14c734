import pytest

from mantis.showing.histogram import MOST_BARS, counts_plot, histogram


def bars(*values: int) -> list[tuple[str, int]]:
    return [(bar.label, bar.count) for bar in histogram("t", "u", values).bars]


def test_few_whole_numbers_get_a_bar_each() -> None:
    assert bars(1, 3, 3, 2, 3) == [("1", 1), ("2", 1), ("3", 3)]


def test_many_values_get_bars_of_one_round_width() -> None:
    assert bars(3, 14, 15, 99) == [("0–9", 1), ("10–19", 2)] + [
        (f"{low}–{low + 9}", 0) for low in range(20, 90, 10)
    ] + [("90–99", 1)]


@pytest.mark.parametrize("values", [[0], [5] * 7, [0, 8191], [100_000, 1_000_003], list(range(17))])
def test_every_value_is_in_one_of_a_few_bars(values: list[int]) -> None:
    found = bars(*values)
    assert sum(count for _, count in found) == len(values)
    assert len(found) <= MOST_BARS


def test_nothing_gives_no_bar() -> None:
    assert bars() == []
    assert counts_plot("t", "u", {}).bars == ()
