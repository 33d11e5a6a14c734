"""Rows of Parquet files: the values that Arrow gives, and files that would need too much memory."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mantis.errors import InputError
from mantis.store import parquet_file, parquet_pages
from mantis.store.local import LocalStore
from mantis.store.parquet_file import RefusedRow, open_parquet
from mantis.store.parquet_indices import written_out
from mantis.store.parquet_pages import PageRefused, parse_page_header

IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def read(path: Path, *columns: str) -> list[Any]:
    with open_parquet(LocalStore(path.parent), path.name) as table:
        names = columns or table.schema.names
        return [row for groups in table.passes() for row in table.rows(groups, names)]


def written(folder: Path, table: pa.Table, **options: Any) -> Path:
    path = folder / "train-0.parquet"
    pq.write_table(table, path, **options)
    return path


def repeated(rows: int, per_row: int, image: bytes) -> pa.Table:
    """Rows that all name one entry of a dictionary."""
    count = rows * per_row
    data = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([image], pa.binary()))
    images = pa.StructArray.from_arrays([data, pa.array(["a.jpg"] * count)], ["bytes", "path"])
    offsets = pa.array(range(0, count + 1, per_row), pa.int32())
    return pa.table({"id": [str(row) for row in range(rows)], "images": pa.ListArray.from_arrays(offsets, images)})


TURNS = [{"role": "user", "content": "What?"}, {"role": None, "content": "Ä" * 50}, None]
KINDS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["a", None, "", "long " * 100] * 30),
    (pa.large_string(), ["a", None] * 40),
    (pa.string_view(), ["a view of more than twelve characters", None] * 40),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b", None, "a"] * 20),
    (pa.int64(), [1, None, 3]),
    (pa.float64(), [1.5, None]),
    (pa.null(), [None, None]),
    (pa.list_(pa.string()), [["a", None], [], None, ["b"]] * 30),
    (pa.large_list(pa.large_string()), [["a"], [], None]),
    (pa.list_(pa.null()), [[None], [], None]),
    (pa.list_(pa.int32(), 2), [[1, 2], [3, 4]]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)], [], None]),
    (IMAGES, [[{"bytes": b"\xff\xd8", "path": None}], [], None, [{"bytes": None, "path": "a.jpg"}] * 3] * 20),
    (pa.list_(pa.list_(pa.string())), [[["a"], [], None], [], None]),
    (pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])), [TURNS, [], None] * 20),
]


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize(("kind", "values"), KINDS, ids=[str(kind)[:40] for kind, _ in KINDS])
def test_every_kind_of_column_has_the_values_that_were_written(
    tmp_path: Path, kind: pa.DataType, values: list[Any], version: str, dictionary: bool
) -> None:
    table = pa.table({"value": pa.array(values, kind)})
    path = written(tmp_path, table, use_dictionary=dictionary, data_page_version=version, row_group_size=50)
    assert read(path) == [{"value": value} for value in values]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=[str(kind)[:40] for kind, _ in KINDS])
def test_values_that_repeat_too_often_to_be_written_out_are_the_same(
    tmp_path: Path, kind: pa.DataType, values: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_pages, "REPEATED_BYTES", -(1 << 30))
    monkeypatch.setattr(parquet_file, "BATCH_ROWS", 7)
    path = written(tmp_path, pa.table({"value": pa.array(values, kind)}), row_group_size=50)
    assert read(path) == [{"value": value} for value in values]


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_image_that_many_rows_repeat_is_one_object_in_memory(tmp_path: Path, codec: str, version: str) -> None:
    image = bytes(3_000_000)
    path = written(tmp_path, repeated(64, 24, image), compression=codec, data_page_version=version)
    rows = read(path)
    assert [[entry["bytes"] for entry in row["images"]] for row in rows] == [[image] * 24] * 64
    assert {len({id(entry["bytes"]) for entry in row["images"]}) for row in rows} == {1}


def test_pages_that_are_larger_than_a_batch_are_read_with_fewer_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "BATCH_BYTES", 300_000)
    generator = np.random.default_rng(0)
    sizes = [10] * 500 + [200_000] * 20 + [10] * 500
    values = [generator.bytes(size) for size in sizes]
    table = pa.table({"id": range(len(values)), "value": pa.array(values, pa.binary())})
    options: dict[str, Any] = {"use_dictionary": False, "data_page_size": 1000, "write_batch_size": 1}
    path = written(tmp_path, table, **options)
    sized: list[int] = []
    rows_of = parquet_file.batch_rows

    def counted(batch: pa.RecordBatch) -> Any:
        sized.append(len(batch))
        return rows_of(batch)

    monkeypatch.setattr(parquet_file, "batch_rows", counted)
    assert read(path) == [{"id": number, "value": value} for number, value in enumerate(values)]
    assert max(sized) > 16
    assert min(sized) <= 4


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY"])
def test_a_large_dictionary_is_read_once(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of a dictionary needs its bytes, and so does Arrow."""
    generator = np.random.default_rng(0)
    images = [generator.bytes(1_000_000) for _ in range(12)]
    path = written(tmp_path, pa.table({"image": images}), compression=codec, dictionary_pagesize_limit=1 << 25)
    asked: list[int] = []
    get_range = LocalStore.get_range

    def counted(store: LocalStore, key: str, start: int, length: int) -> bytes:
        asked.append(length)
        return get_range(store, key, start, length)

    monkeypatch.setattr(LocalStore, "get_range", counted)
    assert [row["image"] for row in read(path)] == images
    header = parquet_pages.WINDOW  # the window in which the header of the page stands
    assert sum(asked) < path.stat().st_size + 2 * header


def test_text_that_is_not_utf8_holds_surrogates_and_other_rows_stay(tmp_path: Path) -> None:
    data = pa.array([b"good", b"b\xffd"], pa.binary())
    path = written(tmp_path, pa.table({"text": data.view(pa.string()), "data": data}))
    assert read(path) == [{"text": "good", "data": b"good"}, {"text": "b\udcffd", "data": b"b\xffd"}]


def test_a_row_that_names_more_than_a_row_may_hold_is_refused_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "ROW_VALUES", 1000)
    monkeypatch.setattr(parquet_file, "SLICE_VALUES", 1000)
    monkeypatch.setattr(parquet_file, "ROW_BYTES", 5_000_000)
    monkeypatch.setattr(parquet_file, "SLICE_BYTES", 1_000_000)
    images = pa.array([[b"x"] * 2, [b"x"] * 2000, [b"y" * 100_000] * 60, [b"z"]], pa.list_(pa.binary()))
    path = written(tmp_path, pa.table({"images": images}))
    assert read(path) == [
        {"images": [b"x", b"x"]},
        RefusedRow(value="2,001 values", threshold="1,000 values"),
        RefusedRow(value="5 MiB", threshold="4 MiB"),
        {"images": [b"z"]},
    ]


def patched(path: Path, column: int, change: dict[int, int]) -> None:
    """Rewrite the first page header of a column: fields of the header by number, as Thrift's compact integers."""
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    header = parse_page_header(bytes(data[start:]))
    values = {1: header.kind, 2: header.uncompressed, 3: header.compressed} | change
    body = b"".join(b"\x15" + varint(values[number]) for number in (1, 2, 3))
    rest = bytes(data[start:])[len(body) : header.length]
    data[start : start + header.length] = (body + rest)[: header.length]
    path.write_bytes(data)


def varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_a_page_that_states_gigabytes_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = written(tmp_path, pa.table({"text": ["a" * 3000] * 5}), use_dictionary=False, compression="gzip")
    patched(path, 0, {2: 1_900_000_000})
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(InputError, match=r"column text: a page of 1,811 MiB") as caught:
        read(path)
    assert "row_group_size" in caught.value.remedy
    assert pa.default_memory_pool().max_memory() - before < 50_000_000


def test_a_large_dictionary_of_values_that_repeat_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "PAGE_BYTES", 10_000_000)
    path = written(tmp_path, repeated(40, 24, bytes(4_000_000)))
    with pytest.raises(InputError, match=r"column images.list.element.bytes: a page of 3 MiB; the pages read together"):
        read(path)


def test_a_row_whose_pages_alone_are_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "ROW_BYTES", 10_000)
    monkeypatch.setattr(parquet_file, "BATCH_BYTES", 5_000)
    large = np.random.default_rng(0).bytes(40_000)
    table = pa.table({name: pa.array([b"x", large, b"y"], pa.binary()) for name in "abc"})
    options: dict[str, Any] = {"use_dictionary": False, "data_page_size": 10, "write_batch_size": 1}
    with pytest.raises(InputError, match=r"row \d of row group 0 holds more than"):
        read(written(tmp_path, table, **options))


def test_prefixes_that_values_share_are_refused(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{'prefix' * 100}{number}" for number in range(100)]})
    path = written(tmp_path, table, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    with pytest.raises(InputError, match=r"column text: the encoding DELTA_BYTE_ARRAY"):
        read(path)


def test_long_values_of_fixed_length_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, pa.table({"data": pa.array([bytes(1000)] * 3, pa.binary(1000))}))
    with pytest.raises(InputError, match=r"column data has values of 1000 bytes each"):
        read(path)


def test_nulls_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "PAGE_VALUES", 50_000)
    path = written(tmp_path, pa.table({"images": pa.array([[None] * 200_000], pa.list_(pa.binary()))}))
    with pytest.raises(InputError, match=r"column images.list.element: a page of 200,000 values"):
        read(path)


def test_a_footer_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "FOOTER_BYTES", 100)
    with pytest.raises(InputError, match="a footer of"):
        read(written(tmp_path, pa.table({"a": [1]})))


@pytest.mark.parametrize("cut", [4, 40, 400])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, pa.table({"text": [str(number) * 50 for number in range(100)]}))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(path)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_parser_of_page_headers(data: bytes) -> None:
    try:
        header = parse_page_header(data)
    except (IndexError, PageRefused):
        return
    assert 0 < header.length <= len(data)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_the_bytes_of_repeated_values_are_those_that_arrow_writes_out(numbers: list[int], run: int) -> None:
    texts = [str(number) * (number + 1) for number in numbers for _ in range(run)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink, compression="NONE")
    data = sink.getvalue().to_pybytes()
    chunk = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(0)
    header = parse_page_header(data[chunk.data_page_offset :])
    page = data[chunk.data_page_offset + header.length :][: header.compressed]
    skipped = 4 + struct.unpack_from("<I", page)[0]
    lengths = np.array([len(text) for text in dict.fromkeys(texts)])
    assert written_out(page[skipped:], lengths, values=header.values) == sum(map(len, texts))
