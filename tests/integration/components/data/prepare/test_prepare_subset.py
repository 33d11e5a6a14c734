from components.data.step import prepare
from mantis.store.base import ObjectStore
from tests.fixtures.data import RawFolder, RowsOf, RunOn


def test_prepared_in_minio(raw_folder: RawFolder, run_on: RunOn, minio_store: ObjectStore, data_of: RowsOf) -> None:
    raw_folder.image("a.jpg")
    run = run_on(raw_folder.write([raw_folder.row("a", "a.jpg"), raw_folder.row("b")]), store=minio_store)
    dataset = prepare(run, "raw")
    assert [row["id"] for row in data_of(run, dataset)] == ["a", "b"]
    assert dataset.fingerprint in dataset.key
