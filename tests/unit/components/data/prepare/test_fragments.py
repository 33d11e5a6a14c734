"""Fragments: what is recorded, what is done again, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.prepare.prepare_subset import prepare_subset
from components.data.prepare.row_validator import RowLimits
from components.data.sources.find import open_source
from mantis.errors import InputError, IntegrityError, StoreError
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from tests.fixtures.data import MakeJpeg, RawFolder

LIMITS = RowLimits(max_images=None, max_turn_characters=1000, max_image_pixels=10**6, max_image_bytes=10**6)


def prepared(store: ObjectStore, folder: Path, *, workers: int = 1, fragment_rows: int = 3) -> dict[str, Any]:
    source = open_source(str(folder), "raw")
    return prepare_subset(store, "made", "raw", source, limits=LIMITS, workers=workers, fragment_rows=fragment_rows)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), names=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=14))
def test_any_fragments_lost_with_any_workers_give_the_same(
    data: Any, names: Any, tmp_path_factory: pytest.TempPathFactory, raw_folder: RawFolder, make_jpeg: MakeJpeg
) -> None:
    """Ids are drawn with repeats, so that which row is the duplicate depends on rows of other fragments."""
    folder = type(raw_folder)(tmp_path_factory.mktemp("any") / "raw")
    images = [folder.image(f"{number}.jpg", make_jpeg((number, 0, 0))) for number in range(len(names))]
    folder.write([folder.row(name, image) for name, image in zip(names, images, strict=True)])
    store = open_store(tmp_path_factory.mktemp("store").as_uri())
    expected = prepared(store, folder.folder)
    assert (expected["kept"], expected["rows"]) == (len(set(names)), len(names))
    table = open_table(store, "made/data.lance").to_table().to_pylist()
    assert [row["id"] for row in table] == list(dict.fromkeys(names))
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
    assert 9 <= len(list(local_store.list("made/fragments"))) <= 11, "all but the rows that were still in work"
    (folder / "train.json").write_text(whole)
    assert prepared(local_store, folder, fragment_rows=4)["kept"] == 60


def test_an_error_of_the_store_comes_through(raw_folder: RawFolder, local_store: LocalStore) -> None:
    folder = raw_folder.write([raw_folder.row(f"{number}") for number in range(40)])
    (local_store.root / "made").mkdir(parents=True)
    (local_store.root / "made" / "fragments").write_text("no folder")
    with pytest.raises(StoreError, match="cannot be written"):
        prepared(local_store, folder)
