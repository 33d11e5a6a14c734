"""The published layouts, each built from real JPEGs, from a disk and from MinIO."""

import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.data.sources.find import find_sources, open_source
from components.data.sources.source_identity import Memory
from components.data.step import prepare, resolve_subsets
from mantis.errors import ConfigError, InputError
from mantis.store.base import ObjectStore, upload_tree
from mantis.store.local import LocalStore
from mantis.store.opening import open_store
from tests.fixtures.data import RowsOf, RunOn

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [("id", pa.string()), ("images", pa.list_(IMAGE)), ("conversation", pa.list_(TURN)), ("source", pa.string())]
)
ROWS = 24


@dataclass(frozen=True, kw_only=True)
class RealRows:
    """Real rows, and their images by path."""

    rows: list[dict[str, Any]]
    images: dict[str, bytes]


@pytest.fixture(scope="module")
def real(test_data: Path) -> RealRows:
    """The first rows of the real conversations, and their images' bytes by path."""
    folder = test_data / "mantis-chat"
    rows = json.loads((folder / "train.json").read_text())[:ROWS]
    return RealRows(rows=rows, images={path: (folder / path).read_bytes() for row in rows for path in row["images"]})


def published(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    split: str = "train",
    parts: int = 2,
    name: Callable[..., Any] = lambda path: path,
    data: Callable[..., Any] = lambda path: None,
) -> None:
    """The rows as `parts` Parquet files with small row groups; `name` and `data` say what they hold of an image."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // parts)
    for part in range(parts):
        made = [
            {**row, "images": [{"bytes": data(path), "path": name(path)} for path in row["images"]], "source": "test"}
            for row in rows[part * size : (part + 1) * size]
        ]
        table = pa.Table.from_pylist(made, schema=SCHEMA)
        pq.write_table(table, folder / f"{split}-{part:05d}-of-{parts:05d}.parquet", row_group_size=5)


def zipped(path: Path, members: Iterable[Any] | list[tuple[str, bytes]], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)


def bytes_in_rows(folder: Path, rows: list[dict[str, Any]], images: dict[str, bytes]) -> None:
    published(folder / "nlvr2", rows, data=images.get)


def one_zip(folder: Path, rows: list[dict[str, Any]], images: dict[str, bytes]) -> None:
    published(folder / "nlvr2", rows)
    zipped(folder / "nlvr2" / "train_images.zip", images.items())


def five_parts(folder: Any, rows: Any, images: Any) -> None:
    published(folder / "nlvr2", rows, parts=3)
    every = list(images.items())
    for part in range(5):
        kind = zipfile.ZIP_DEFLATED if part % 2 else zipfile.ZIP_STORED
        zipped(folder / "nlvr2" / f"train_images_part{part + 1}.zip", every[part::5], compression=kind)


def nested_folders(folder: Any, rows: Any, images: Any) -> None:
    """The zip holds the folder that the official loader unpacks it into; rows do not name that folder."""
    published(folder / "nlvr2", rows, name=lambda path: path.removeprefix("train_images/"))
    with zipfile.ZipFile(folder / "nlvr2" / "train_images.zip", "w") as archive:
        for path, data in images.items():
            archive.mkdir(path.rpartition("/")[0]) if path.rpartition("/")[0] + "/" not in archive.namelist() else None
            archive.writestr(path, data)


def with_val(folder: Path, rows: list[dict[str, Any]], images: dict[str, bytes]) -> None:
    one_zip(folder, rows, images)
    published(folder / "nlvr2", rows[:3], split="val", parts=1)
    zipped(folder / "nlvr2" / "val_images.zip", [(path, images[path]) for row in rows[:3] for path in row["images"]])


def raw_json(folder: Path, rows: list[dict[str, Any]], images: dict[str, bytes]) -> None:
    for path, data in images.items():
        target = folder / "nlvr2" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "nlvr2" / "train.json").write_text(json.dumps(rows))


def json_and_zip(folder: Any, rows: Any, images: Any) -> None:
    """As LLaVA-Pretrain is published."""
    zipped(folder / "nlvr2" / "images.zip", images.items())
    (folder / "nlvr2" / "train.json").write_text(json.dumps(rows))


LAYOUTS = [bytes_in_rows, one_zip, five_parts, nested_folders, with_val, raw_json, json_and_zip]


def bucket_with(store: ObjectStore, folder: Path) -> str:
    upload_tree(store, "raw", folder)
    return store.uri("raw")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_disk_and_a_bucket_give_the_same_dataset(
    layout: Callable[..., Any], real: RealRows, tmp_path: Path, run_on: RunOn, minio_store: ObjectStore, data_of: RowsOf
) -> None:
    rows, images = real.rows, real.images
    layout(tmp_path / "raw", rows, images)
    at_home = run_on(tmp_path / "raw")
    away = run_on(bucket_with(minio_store, tmp_path / "raw"), store=open_store((tmp_path / "other").as_uri()))
    assert resolve_subsets(at_home) == resolve_subsets(away) == ["nlvr2"]
    first, second = prepare(at_home, "nlvr2"), prepare(away, "nlvr2")
    assert first.fingerprint == second.fingerprint
    assert first.summary == second.summary
    kept = data_of(at_home, first)
    assert [row["id"] for row in kept] == [row["id"] for row in rows]
    assert [row["images"] for row in kept] == [[images[path] for path in row["images"]] for row in rows]
    assert data_of(away, second) == kept


def test_a_validation_split_is_a_subset_that_has_to_be_named(
    real: RealRows, tmp_path: Path, run_on: RunOn, data_of: RowsOf
) -> None:
    rows, images = real.rows, real.images
    with_val(tmp_path / "raw", rows, images)
    run = run_on(tmp_path / "raw", {"data.subsets": "[{name: nlvr2-val}]"})
    assert resolve_subsets(run) == ["nlvr2-val"]
    assert [row["id"] for row in data_of(run, prepare(run, "nlvr2-val"))] == [row["id"] for row in rows[:3]]
    assert resolve_subsets(run_on(tmp_path / "raw")) == ["nlvr2"]


def test_what_is_there_is_told_without_reading_an_image(
    real: RealRows, tmp_path: Path, minio_store: ObjectStore
) -> None:
    rows, images = real.rows, real.images
    with_val(tmp_path / "raw", rows, images)
    raw_json(tmp_path / "json", rows, images)
    for url in (str(tmp_path / "raw"), bucket_with(minio_store, tmp_path / "raw")):
        found = {name: source.extent() for name, source in find_sources(url).items()}
        assert {name: extent.rows for name, extent in found.items()} == {"nlvr2": ROWS, "nlvr2-val": 3}
        files = (tmp_path / "raw" / "nlvr2").glob("train*")
        assert found["nlvr2"].bytes == sum(file.stat().st_size for file in files)
    (extent,) = [source.extent() for source in find_sources(str(tmp_path / "json")).values()]
    assert extent.rows == ROWS
    assert extent.bytes == sum(file.stat().st_size for file in (tmp_path / "json").rglob("*") if file.is_file())


def test_a_source_is_hashed_once_and_again_when_a_byte_has_changed(
    real: RealRows, tmp_path: Path, local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mantis.store.local.YOUNG_SECONDS", -1.0)
    rows, images = real.rows, real.images
    raw_json(tmp_path / "raw", rows, images)
    read = []
    monkeypatch.setattr(
        "components.data.sources.source_identity.hash_object",
        lambda store, key, size: read.append(key) or store.get(key).hex()[:64],
    )

    def identity() -> Any:
        read.clear()
        return open_source(str(tmp_path / "raw"), "nlvr2").fingerprint(Memory(store=local_store))

    first = identity()
    assert len(read) == len(images) + 1
    assert identity() == first
    assert read == []
    changed = tmp_path / "raw" / "nlvr2" / rows[0]["images"][0]
    changed.write_bytes(b"\0" + changed.read_bytes()[1:])
    assert identity() != first
    assert len(read) == len(images)


def zip_and_files(folder: Path, rows: list[dict[str, Any]], images: dict[str, bytes]) -> None:
    """Every second image is a member of a zip, the others are files."""
    every = list(images.items())
    raw_json(folder, rows, dict(every[::2]))
    zipped(folder / "nlvr2" / "images.zip", every[1::2])


@pytest.mark.parametrize("layout", [one_zip, raw_json, json_and_zip, zip_and_files], ids=lambda layout: layout.__name__)
def test_a_second_run_reads_no_row_and_no_zip(
    layout: Callable[..., Any], real: RealRows, tmp_path: Path, run_on: RunOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mantis.store.local.YOUNG_SECONDS", -1.0)
    layout(tmp_path / "raw", real.rows, real.images)
    run = run_on(tmp_path / "raw")
    first = prepare(run, "nlvr2")
    read = []
    for name in (
        "components.data.sources.source_identity.hash_object",
        "components.data.sources.rows.row_reader.RowReader.read",
        "components.data.sources.images.zip_images.read_directory",
        "components.data.prepare.prepare_subset.prepare_subset",
    ):
        monkeypatch.setattr(name, lambda *args, name=name, **options: read.append(name))
    assert prepare(run, "nlvr2") == first
    assert read == []


@pytest.mark.parametrize("layout", [bytes_in_rows, one_zip], ids=lambda layout: layout.__name__)
def test_a_changed_image_changes_the_address(
    layout: Callable[..., Any], real: RealRows, tmp_path: Path, run_on: RunOn
) -> None:
    rows, images = real.rows, real.images
    layout(tmp_path / "raw", rows[:3], images)
    layout(tmp_path / "changed", rows[:3], images | {rows[0]["images"][0]: images[rows[2]["images"][0]]})
    assert prepare(run_on(tmp_path / "raw"), "nlvr2").key != prepare(run_on(tmp_path / "changed"), "nlvr2").key


def test_a_missing_column_is_named_with_its_file(real: RealRows, tmp_path: Path, run_on: RunOn) -> None:
    rows, images = real.rows, real.images
    bytes_in_rows(tmp_path / "raw", rows, images)
    file = tmp_path / "raw" / "nlvr2" / "train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["conversation"]), file)
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet has no column that holds a conv"):
        prepare(run_on(tmp_path / "raw"), "nlvr2")


def test_a_cut_off_parquet_file_is_named(real: RealRows, tmp_path: Path, run_on: RunOn) -> None:
    rows, images = real.rows, real.images
    bytes_in_rows(tmp_path / "raw", rows, images)
    file = tmp_path / "raw" / "nlvr2" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet cannot be read as Parquet"):
        prepare(run_on(tmp_path / "raw"), "nlvr2")


def test_text_that_is_not_utf8_costs_its_row_alone(
    real: RealRows, tmp_path: Path, run_on: RunOn, ledger_of: RowsOf, data_of: RowsOf
) -> None:
    rows, images = real.rows, real.images
    bytes_in_rows(tmp_path / "raw", rows[:6], images)
    file = tmp_path / "raw" / "nlvr2" / "train-00000-of-00002.parquet"
    content = rows[1]["conversation"][1]["content"].encode()
    pq.write_table(pq.read_table(file), file, compression="none", use_dictionary=False)
    broken = file.read_bytes().replace(content, b"\xff" + content[1:])
    file.write_bytes(broken)
    run = run_on(tmp_path / "raw")
    dataset = prepare(run, "nlvr2")
    (entry,) = ledger_of(run, dataset)
    assert (entry["row"], entry["reason"], entry["value"]) == (1, "text-not-utf8", "turn 2, character 1")
    kept = data_of(run, dataset)
    assert [row["row"] for row in kept] == [0, 2, 3, 4, 5]
    assert [row["images"] for row in kept] == [[images[path] for path in rows[at]["images"]] for at in (0, 2, 3, 4, 5)]


def test_two_folders_of_one_name_are_refused(real: RealRows, tmp_path: Path) -> None:
    rows, images = real.rows, real.images
    with_val(tmp_path / "raw", rows[:3], images)
    published(tmp_path / "raw" / "nlvr2-val", rows[:3], data=images.get)
    with pytest.raises(ConfigError, match="both have the subset name 'nlvr2-val'"):
        find_sources(str(tmp_path / "raw"))


def test_no_such_bucket_is_said_plainly(minio_store: ObjectStore, run_on: RunOn) -> None:
    with pytest.raises(ConfigError, match=r"data\.source = 's3://no-such-bucket/raw'"):
        resolve_subsets(run_on("s3://no-such-bucket/raw"))
