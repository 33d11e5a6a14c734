import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.data.sources.files import json_stream
from components.data.sources.files.json_stream import (
    begins_member,
    first_values,
    read_list,
    read_member,
    read_values,
)
from components.data.sources.rejection import RowRejected
from mantis.errors import InputError


def read(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        yield from read_list(file, str(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(VALUES, max_size=12), indent=st.sampled_from([None, 2]), chunk=st.integers(1, 40))
@example(rows=[-0.0, 12.5e3, 1], indent=None, chunk=2)
def test_any_list_is_read_as_it_is_whatever_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, indent: Any, chunk: Any
) -> None:
    path = tmp_path_factory.mktemp("json") / "train.json"
    path.write_text(json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        assert list(read(path)) == rows


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", "line 1, column 1"),
        ('{"id": 1}', "line 1, column 1"),
        ('[{"id": 1},\n {"id": }]', "line 2, column 9"),
        ('[{"id": 1}\n {"id": 2}]', "line 2, column 2"),
        ('[\n{"id": 1},\n', "line 3, column 1"),
        ('[{"id": "never ends', "line 1, column 9"),
        ("[" * 100_000, "line 1, column 2"),
    ],
)
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_broken_json_names_file_line_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, position: str, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(InputError, match=position) as caught:
        list(read(path))
    assert str(path) in str(caught.value)


def test_rows_before_the_damage_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text('[{"id": 1}, {"id": 2}, {"id"')
    rows = read(path)
    assert next(rows) == {"id": 1}
    assert next(rows) == {"id": 2}
    with pytest.raises(InputError):
        next(rows)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(b"\xef\xbb\xbf[1, 2]")
    assert list(read(path)) == [1, 2]


@pytest.mark.parametrize("text", ["[1] [2]", '[{"id": 1}]\n[{"id": 2}]', "[] x", "[1],"])
def test_text_behind_the_list_is_no_row_that_is_left_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(InputError, match="text behind the end of the list"):
        list(read(path))


def test_text_behind_an_object_is_no_row_that_is_left_out() -> None:
    with pytest.raises(InputError, match="text behind the end of the object"):
        list(read_member(io.BytesIO(b'{"data": [1]} {"data": [2]}'), "train.json", is_row=no_row))


def no_row(value: Any) -> bool:
    return False


def test_another_list_of_rows_in_an_object_is_named() -> None:
    text = b'{"tags": [1], "data": [{"query": 1}], "more": [{"query": 2}]}'
    with pytest.raises(InputError, match="has rows under 'more', beside `data`"):
        list(read_member(io.BytesIO(text), "train.json", is_row=lambda value: isinstance(value, dict)))
    assert list(read_member(io.BytesIO(text), "train.json", is_row=no_row)) == [{"query": 1}]


@pytest.mark.parametrize("digits", [4300, 4301, 100_000])
def test_a_number_of_any_length_is_read(digits: int) -> None:
    """Python converts at most 4,300 digits. A longer number stays a text, for the checks of the row to judge."""
    long = "1" * digits
    found = list(read_values(io.BytesIO(f'{{"id": {long}, "n": -3}}\n{{"id": 4}}'.encode()), "train.jsonl"))
    assert found == [{"id": int(long) if digits <= 4300 else long, "n": -3}, {"id": 4}]
    assert first_values(f'{{"id": {long}}}', 1) == [{"id": found[0]["id"]}]
    assert begins_member(f'{{"n": {long}, "data": [')


def test_a_value_that_is_too_long_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 10)
    monkeypatch.setattr(json_stream, "LONGEST_ROW", 50)
    with pytest.raises(InputError, match="line 2, column 2: broken JSON: a value of more than 50 characters"):
        list(read_list(io.BytesIO(f'[1,\n {{"a": "{"x" * 200}"}}]'.encode()), "train.json"))


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_key_with_two_values_costs_its_row_alone(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    texts = ['{"a": 1, "a": 2}', '{"a": [{"b": null, "c": 0, "b": 3}]}', '{"a": {"b": 1}, "a": {"b": 1}}', '{"a": 4}']
    for rows in (
        read_list(io.BytesIO(f"[{', '.join(texts)}]".encode()), "train.json"),
        read_values(io.BytesIO("\n".join(texts).encode()), "train.jsonl"),
    ):
        first, second, *others = rows
        assert isinstance(first, RowRejected)
        assert isinstance(second, RowRejected)
        assert [(refusal.reason, refusal.value) for refusal in (first, second)] == [
            ("key-twice", "a"),
            ("key-twice", "b"),
        ]
        assert others == [{"a": {"b": 1}}, {"a": 4}]
