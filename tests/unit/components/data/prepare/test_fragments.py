"""Fragments: what is recorded, what is done again, what is refused."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.prepare import fragments, row_validator
from components.data.prepare.fragments import WRITERS
from components.data.prepare.ledger import count_reasons
from components.data.prepare.prepare_subset import prepare_subset
from components.data.prepare.row_validator import RowValidator, limits_of
from components.data.sources.find import open_source
from mantis.config.data_settings import DataSettings
from mantis.errors import InputError, IntegrityError, StoreError
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table, write_fragments
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from tests.fixtures.data import MakeJpeg, RawFolder

LIMITS = limits_of(DataSettings(max_turn_characters=1000, max_image_pixels=10**6, max_image_bytes=10**6), "raw")


def prepared(store: ObjectStore, folder: Path, *, workers: int = 1, fragment_rows: int = 3) -> dict[str, Any]:
    source = open_source(str(folder), "raw")
    return prepare_subset(store, "made", "raw", source, limits=LIMITS, workers=workers, fragment_rows=fragment_rows)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    drawn=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([*range(5), "away"])), min_size=1, max_size=14),
)
def test_any_fragments_lost_with_any_workers_give_the_same(
    data: Any, drawn: Any, tmp_path_factory: pytest.TempPathFactory, raw_folder: RawFolder, make_jpeg: MakeJpeg
) -> None:
    """Ids and images are drawn with repeats: names of rows, and which row is a copy, depend on other fragments."""
    folder = type(raw_folder)(tmp_path_factory.mktemp("any") / "raw")
    for number in range(5):
        folder.image(f"{number}.jpg", make_jpeg((number * 50, 0, 0)))
    folder.image("first.jpg")
    rows = [{**folder.row("", f"{image}.jpg"), "id": name} for name, image in drawn]
    folder.write([folder.row("first", "first.jpg"), *rows])
    store = open_store(tmp_path_factory.mktemp("store").as_uri())
    expected = prepared(store, folder.folder)
    first_rows = {image: row for row, (_, image) in reversed([*enumerate(drawn, start=1)]) if image != "away"}
    assert (expected["kept"], expected["rows"]) == (1 + len(first_rows), 1 + len(drawn))
    assert expected["unusable"] == sum(image == "away" for _, image in drawn)
    table = open_table(store, "made/data.lance").to_table().to_pylist()
    assert [row["row"] for row in table] == [0, *sorted(first_rows.values())]
    assert len({row["id"] for row in table}) == len(table)
    names = [name for name, _ in drawn]
    for row in table[1:]:
        earlier = names[: row["row"] - 1].count(names[row["row"] - 1])
        assert row["id"] == names[row["row"] - 1] + (f"#{earlier + 1}" if earlier else "")
    records = [entry.key for entry in store.list("made/fragments")]
    for key in data.draw(st.sets(st.sampled_from(records))):
        store.delete(key)
    assert prepared(store, folder.folder, workers=data.draw(st.integers(1, 3))) == expected
    assert open_table(store, "made/data.lance").to_table().to_pylist() == table


def test_a_fragment_that_is_gone_is_an_error_and_not_a_hole(raw_folder: RawFolder, local_store: LocalStore) -> None:
    folder = raw_folder.write([raw_folder.row(f"{number}") for number in range(9)])
    prepared(local_store, folder)
    local_store.delete(next(iter(local_store.list("made/data.lance/data"))).key)
    with pytest.raises(IntegrityError, match=r"data\.lance/data/.* is missing"):
        prepared(local_store, folder)


def test_a_record_that_is_none_is_named(raw_folder: RawFolder, local_store: LocalStore) -> None:
    folder = raw_folder.write([raw_folder.row(f"{number}") for number in range(9)])
    local_store.put("made/fragments/000000000003.json", b"{}")
    with pytest.raises(IntegrityError, match=r"fragments/000000000003\.json is no record"):
        prepared(local_store, folder)


def test_an_error_of_the_source_stops_the_writers_and_keeps_whole_fragments(
    raw_folder: RawFolder, local_store: LocalStore
) -> None:
    good = [raw_folder.row(f"{number}") for number in range(60)]
    folder = raw_folder.write(good)
    whole = (folder / "train.json").read_text()
    (folder / "train.json").write_text(whole[:-1] + ", oops]")
    with pytest.raises(InputError, match="broken JSON"):
        prepared(local_store, folder, fragment_rows=4)
    recorded = len(list(local_store.list("made/fragments")))
    assert (60 - row_validator.AHEAD) // 4 - WRITERS <= recorded < 60 // 4, "all but those of rows in work"
    (folder / "train.json").write_text(whole)
    assert prepared(local_store, folder, fragment_rows=4)["kept"] == 60


def test_an_error_of_the_store_comes_through(raw_folder: RawFolder, local_store: LocalStore) -> None:
    folder = raw_folder.write([raw_folder.row(f"{number}") for number in range(40)])
    (local_store.root / "made").mkdir(parents=True)
    (local_store.root / "made" / "fragments").write_text("no folder")
    with pytest.raises(StoreError, match="cannot be written"):
        prepared(local_store, folder)


def test_rows_in_work_hold_few_bytes_whatever_their_images_weigh(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the bound, 16 rows per worker are read ahead."""
    image = make_jpeg(size=(200, 200))
    monkeypatch.setattr(row_validator, "AHEAD_BYTES", 3 * len(image))
    rows = [raw_folder.row(f"{number}", raw_folder.image(f"{number}.jpg", image)) for number in range(40)]
    validator = RowValidator("raw", open_source(str(raw_folder.write(rows)), "raw"), LIMITS, 1)
    ahead = [validator.read - outcome.number for outcome in validator.outcomes(lambda _: True)]
    assert len(ahead) == 40
    assert 1 < max(ahead) <= 6


def test_a_batch_ends_with_the_row_that_reaches_its_bytes(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty rows of one image, where three fill a batch. The table has them all, in order."""
    rows = [raw_folder.row(f"{row}", raw_folder.image(f"{row}.jpg", make_jpeg((row, 0, 0)))) for row in range(40)]
    folder = raw_folder.write(rows)
    written: list[int] = []

    def watched(store: Any, key: str, schema: Any, batches: Iterable[Any]) -> Any:
        def passed() -> Iterator[Any]:
            for batch in batches:
                written.append(batch.num_rows)
                yield batch

        return write_fragments(store, key, schema, passed())

    monkeypatch.setattr(fragments, "write_fragments", watched)
    monkeypatch.setattr(fragments, "BATCH_BYTES", 2 * len(make_jpeg()) + 100)  # the images differ by a few bytes
    assert prepared(local_store, folder, fragment_rows=40)["kept"] == 40
    assert written == [3] * 13 + [1]
    assert [row["row"] for row in open_table(local_store, "made/data.lance").to_table().to_pylist()] == [*range(40)]


def test_a_row_of_more_bytes_than_a_row_may_have_is_dropped(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = raw_folder.image("a.jpg", make_jpeg())
    size = len(make_jpeg())
    monkeypatch.setattr(row_validator, "ROW_BYTES", 2 * size)
    folder = raw_folder.write([raw_folder.row("two", image, image), raw_folder.row("three", image, image, image)])
    counts = prepared(local_store, folder)
    assert (counts["kept"], counts["dropped"]) == (1, 1)
    assert count_reasons(local_store, "made")["raw"]["dropped"] == {"row-bytes": 1}
