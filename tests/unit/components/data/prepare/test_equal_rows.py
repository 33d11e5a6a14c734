from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.prepare.equal_rows import EqualRows, RowNames
from components.data.sources.rejection import RowRejected


def test_a_repeated_id_gets_a_number_and_is_noted() -> None:
    names = RowNames()
    given_names = [names.give(row, "a") for row in range(3)]
    assert [name for name, _ in given_names] == ["a", "a#2", "a#3"]
    assert [[repair.reason for repair in repairs] for _, repairs in given_names] == [
        [],
        ["id-repeated"],
        ["id-repeated"],
    ]


def test_a_number_and_its_text_are_one_id() -> None:
    names = RowNames()
    assert [names.give(row, wanted)[0] for row, wanted in enumerate([1, "1", 1])] == ["1", "1#2", "1#3"]


@pytest.mark.parametrize("wanted", [3.5, True, ["a"], {"a": 1}, "\ud800"])
def test_an_unusable_id_is_replaced_and_noted(wanted: Any) -> None:
    name, (repair,) = RowNames().give(7, wanted)
    assert (name, repair.reason) == ("row-7", "id-malformed")


@pytest.mark.parametrize("wanted", [None, ""])
def test_a_row_without_id_is_named_by_its_place(wanted: Any) -> None:
    assert RowNames().give(7, wanted) == ("row-7", ())


IDS = st.sampled_from(["a", "a#2", "a#2#2", "row-1", 1, "1", None, "", 2.5, "\ud800"])


@given(ids=st.lists(IDS, max_size=30))
def test_every_row_has_a_name_of_its_own(ids: list[Any]) -> None:
    names = RowNames()
    found = [names.give(row, wanted)[0] for row, wanted in enumerate(ids)]
    assert len(set(found)) == len(ids)
    for name in found:
        name.encode()


def test_the_first_of_equal_rows_is_kept_in_whatever_order_they_are_known() -> None:
    equal = EqualRows([(9, "x"), (4, "x")])
    equal.check(2, "x")  # a row of a lost fragment, before the ones that were kept
    for row in (3, 9):
        with pytest.raises(RowRejected) as caught:
            equal.check(row, "x")
        assert (caught.value.reason, caught.value.value) == ("duplicate", "the content of row 2")
    equal.check(5, "y")


@pytest.mark.parametrize("found", ["a\nb", "a\x1b[2Jb", "a\u2028b", "\x9b", "x" * 100_000, "\u00e4" * 600])
def test_an_id_that_is_not_one_short_line_is_replaced_by_the_number(found: str) -> None:
    name, (repair,) = RowNames().give(7, found)
    assert (name, repair.reason) == ("row-7", "id-malformed")
    assert len(repair.value) < 200
    assert repair.value.isprintable()


def test_an_id_of_1024_bytes_is_kept() -> None:
    assert RowNames().give(7, "x" * 1024) == ("x" * 1024, ())
