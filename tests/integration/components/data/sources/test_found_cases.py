"""Inputs that people brought and that were refused or read wrongly, each with variants of its kind."""

import gzip
import json
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.data.sources.files import tar_rows
from components.data.sources.find import find_sources, open_source
from components.data.sources.reading import reading_of
from components.data.sources.source_identity import Memory
from components.data.step import assemble, prepare
from mantis.artifacts.manifest import Manifest
from mantis.config.data_settings import DataSettings
from mantis.errors import ConfigError, InputError
from mantis.runs.step_runner import Run
from mantis.store import parquet_file
from mantis.store.base import ObjectStore, upload_tree
from mantis.store.opening import open_store
from tests.fixtures.data import RawFolder, RowsOf, RunOn, encoded, tarred

TURNS = [{"from": "human", "value": "<image> Colour?"}, {"from": "gpt", "value": "Blue."}]


def row(answer: str = "Blue.", **fields: Any) -> dict[str, Any]:
    return {"conversations": [TURNS[0], TURNS[1] | {"value": answer}]} | fields


def prepared(run_on: RunOn, folder: Path | str, **options: Any) -> tuple[Run, Manifest]:
    run = run_on(folder, **options)
    (name,) = find_sources(run.recipe.data.source)
    return run, prepare(run, name)


# A list under `image`, with `sample_id` and a key of null (LLaVA-NeXT's M4-Instruct).
def test_a_list_under_image_is_read(raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf) -> None:
    raw_folder.image("0.jpg")
    raw_folder.image("1.jpg", encoded((0, 0, 200)))
    two = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "Both."}]
    raw_folder.write([{"sample_id": 3, "conversations": two, "image": ["0.jpg", "1.jpg"], "choice_list": None}])
    ((found),) = data_of(*prepared(run_on, raw_folder.folder))
    assert (found["id"], found["paths"]) == ("3", ["0.jpg", "1.jpg"])


# Rows of two sources in one file: the other source's keys are there with null.
@pytest.mark.parametrize(
    "fields",
    [
        {"conversations": None, "conversation": TURNS, "images": ["a.jpg"]},
        {"conversations": [turn | {"role": None, "content": None} for turn in TURNS], "images": ["a.jpg"]},
        {"images": None, "image": "a.jpg"},
        {"images": [], "image": "a.jpg"},
        {"images": ["a.jpg"], "image": ""},
        {"images": "a.jpg", "image": None, "messages": None, "texts": [], "query": "", "rejected": None},
        {"images": [{"bytes": None, "path": "a.jpg"}], "system": None, "id": None},
    ],
)
@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_null_beside_a_value_hides_nothing(
    fields: dict[str, Any], suffix: str, raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw_folder.image("a.jpg")
    if suffix == "json":
        raw_folder.write([row(**fields)])
    else:
        pq.write_table(pa.Table.from_pylist([row(**fields)]), raw_folder.folder / "train.parquet")
    (found,) = data_of(*prepared(run_on, raw_folder.folder))
    assert found["contents"] == ["<image> Colour?", "Blue."]
    assert len(found["images"]) == 1


@pytest.mark.parametrize("fields", [{"images": None, "image": "a.jpg"}, {"images": [], "image": ["a.jpg"]}])
def test_a_changed_image_is_noticed_under_any_key(fields: dict[str, Any], raw_folder: RawFolder, run_on: RunOn) -> None:
    raw_folder.image("a.jpg")
    raw_folder.write([row(**fields)])
    _, first = prepared(run_on, raw_folder.folder)
    raw_folder.image("a.jpg", encoded((0, 0, 200), size=(64, 64)))
    _, second = prepared(run_on, raw_folder.folder)
    assert first.key != second.key


# Absolute paths, which the official code reads.
@pytest.mark.parametrize("write", [str, lambda path: f"file://{path}", lambda path: {"path": str(path)}])
def test_an_absolute_path_below_the_source_is_read(
    write: Callable[[Path], Any], raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf
) -> None:
    raw_folder.image("images/a.jpg")
    raw_folder.write([row(images=[write(raw_folder.folder / "images/a.jpg")])])
    (found,) = data_of(*prepared(run_on, raw_folder.folder))
    assert found["paths"] == ["images/a.jpg"]


def test_an_absolute_path_through_a_link_is_read(
    raw_folder: RawFolder, tmp_path: Path, run_on: RunOn, data_of: RowsOf
) -> None:
    raw_folder.image("a.jpg")
    (tmp_path / "link").symlink_to(raw_folder.folder)
    paths = [tmp_path / "link/a.jpg", raw_folder.folder / "a.jpg"]
    raw_folder.write([row(f"Path {number}.", images=[str(path)]) for number, path in enumerate(paths)])
    assert [found["paths"] for found in data_of(*prepared(run_on, tmp_path / "link"))] == [["a.jpg"]] * 2


def test_an_address_below_a_bucket_is_read(
    raw_folder: RawFolder, tmp_path: Path, run_on: RunOn, data_of: RowsOf, minio_store: ObjectStore
) -> None:
    raw_folder.image("images/a.jpg")
    raw_folder.write([row(images=[minio_store.uri("raw/images/a.jpg")])])
    upload_tree(minio_store, "raw", raw_folder.folder)
    store = open_store((tmp_path / "other").as_uri())
    (found,) = data_of(*prepared(run_on, minio_store.uri("raw"), store=store))
    assert found["paths"] == ["images/a.jpg"]


# Images of a source whose subsets share a folder beside them.
def shared(raw_folder: RawFolder, paths: Sequence[str]) -> Path:
    """A source with the subset `cats`, and images in `pictures` beside it. Returns the folder of the source."""
    raw_folder.image("pictures/a.jpg")
    rows = [row(f"Path {number}.", images=[path]) for number, path in enumerate(paths)]
    (raw_folder.folder / "cats").mkdir(exist_ok=True)
    return raw_folder.write(rows, "cats/train.json")


def test_a_path_above_the_rows_and_below_the_source_is_read(
    raw_folder: RawFolder, tmp_path: Path, run_on: RunOn, data_of: RowsOf, minio_store: ObjectStore
) -> None:
    here = raw_folder.folder / "pictures/a.jpg"
    relative = ["../pictures/a.jpg", "./../pictures//a.jpg", "..\\pictures\\a.jpg", "x/../../pictures/a.jpg"]
    folder = shared(raw_folder, [str(here), f"file://{here}", *relative])
    found = data_of(*prepared(run_on, folder))
    assert [each["images"] for each in found] == [[encoded()]] * 6
    assert found[0]["paths"] == ["../pictures/a.jpg"]
    shared(raw_folder, [minio_store.uri("above/pictures/a.jpg"), *relative])
    upload_tree(minio_store, "above", folder)
    store = open_store((tmp_path / "other").as_uri())
    away = data_of(*prepared(run_on, minio_store.uri("above"), store=store))
    assert [each["images"] for each in away] == [[encoded()]] * 5


def test_no_path_leads_out_of_the_source(
    raw_folder: RawFolder, tmp_path: Path, run_on: RunOn, ledger_of: RowsOf
) -> None:
    (tmp_path / "secret.jpg").write_bytes(encoded((1, 2, 3)))
    raw_folder.image("pictures/b.jpg")
    (raw_folder.folder / "pictures/link.jpg").symlink_to(tmp_path / "secret.jpg")
    (raw_folder.folder / "pictures/up").symlink_to(tmp_path)
    outside = [
        "../../secret.jpg",
        "../pictures/../../secret.jpg",
        f"{raw_folder.folder}/../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "../pictures/link.jpg",
        "../pictures/up/secret.jpg",
        f"{raw_folder.folder}/pictures/link.jpg",
    ]
    folder = shared(raw_folder, ["../pictures/b.jpg", *outside])
    entries = ledger_of(*prepared(run_on, folder))
    assert [entry["reason"] for entry in entries] == ["image-outside"] * len(outside)


@pytest.mark.parametrize("beside", ["nothing", "a zip", "an image"])
def test_a_changed_image_above_the_rows_is_noticed(
    beside: str, raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf
) -> None:
    folder = shared(raw_folder, ["../pictures/a.jpg"])
    if beside == "a zip":
        with zipfile.ZipFile(folder / "cats/images.zip", "w") as archive:
            archive.writestr("b.jpg", encoded())
    if beside == "an image":
        raw_folder.image("cats/b.jpg")
    _, first = prepared(run_on, folder)
    assert prepared(run_on, folder)[1].key == first.key
    raw_folder.image("pictures/a.jpg", encoded((0, 0, 200)))
    run, second = prepared(run_on, folder)
    assert second.key != first.key
    assert data_of(run, second)[0]["images"] == [encoded((0, 0, 200))]


@pytest.mark.parametrize(
    ("path", "reason", "word"),
    [
        ("/etc/hostname.jpg", "image-outside", "below the source"),
        ("../outside.jpg", "image-outside", "below the source"),
        ("{folder}-2/a.jpg", "image-outside", "below the source"),
        ("https://example.org/a.jpg", "image-url", "download"),
        ("train.json", "image-unknown", ".json"),
        ("gone.jpg", "image-missing", ""),
    ],
)
def test_another_path_goes_to_the_ledger_with_a_remedy(
    path: str, reason: str, word: str, raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf
) -> None:
    raw_folder.image("a.jpg")
    raw_folder.write([row(images=["a.jpg"]), row(images=[path.format(folder=raw_folder.folder)])])
    (entry,) = ledger_of(*prepared(run_on, raw_folder.folder))
    assert entry["reason"] == reason
    assert word in entry["threshold"]


# Names from macOS (decomposed characters) and from Windows (backslashes).
NAMES = {
    "Bilder/K\u00f6ln.jpg": unicodedata.normalize("NFD", "Bilder/K\u00f6ln.jpg"),
    unicodedata.normalize("NFD", "\u00e9t\u00e9.jpg"): "\u00e9t\u00e9.jpg",
    "\ud55c\uad6d.jpg": unicodedata.normalize("NFD", "\ud55c\uad6d.jpg"),
    "images/a.jpg": "images\\a.jpg",
    "images\\b.jpg": "images/b.jpg",
    "./c.jpg": "c.jpg",
    "d/e.jpg": "./d//e.jpg",
}


@pytest.mark.parametrize("place", ["folder", "zip", "bucket"])
@pytest.mark.parametrize("named", NAMES)
def test_names_of_equal_form_are_one_name(
    named: str,
    place: str,
    raw_folder: RawFolder,
    tmp_path: Path,
    run_on: RunOn,
    data_of: RowsOf,
    minio_store: ObjectStore,
) -> None:
    stored = NAMES[named]
    folder: Path | str = raw_folder.folder
    raw_folder.write([row(images=[named])])
    if place == "zip":
        with zipfile.ZipFile(raw_folder.folder / "images.zip", "w") as archive:
            member = zipfile.ZipInfo("x")
            member.filename = stored  # ZipInfo itself would turn a backslash on Windows
            archive.writestr(member, encoded())
    else:
        raw_folder.image(stored)
    if place == "bucket":
        upload_tree(minio_store, "names", raw_folder.folder)
        folder = minio_store.uri("names")
    store = open_store((tmp_path / "other").as_uri())
    (found,) = data_of(*prepared(run_on, folder, store=store))
    assert found["images"] == [encoded()]


def test_an_exact_name_comes_before_one_of_equal_form(raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf) -> None:
    composed, decomposed = "K\u00f6ln.jpg", unicodedata.normalize("NFD", "K\u00f6ln.jpg")
    raw_folder.image(composed, encoded((0, 0, 200)))
    raw_folder.image(decomposed, encoded((200, 0, 0)))
    with zipfile.ZipFile(raw_folder.folder / "images.zip", "w") as archive:
        for name in (composed, decomposed):
            archive.writestr(f"zipped/{name}", (raw_folder.folder / name).read_bytes())
    names = [composed, decomposed, f"zipped/{composed}", f"zipped/{decomposed}"]
    raw_folder.write([row(f"Name {number}.", images=[name]) for number, name in enumerate(names)])
    found = data_of(*prepared(run_on, raw_folder.folder))
    blue, red = encoded((0, 0, 200)), encoded((200, 0, 0))
    assert [each["images"] for each in found] == [[blue], [red], [blue], [red]]


def test_a_changed_image_of_an_equal_name_is_noticed(raw_folder: RawFolder, local_store: ObjectStore) -> None:
    stored = raw_folder.image(unicodedata.normalize("NFD", "K\u00f6ln.jpg"))
    raw_folder.write([row(images=["K\u00f6ln.jpg"])])

    def identity() -> str:
        return open_source(str(raw_folder.folder), "raw").fingerprint(Memory(store=local_store))

    first = identity()
    raw_folder.image(stored, encoded((0, 0, 200)))
    assert identity() != first


# A zip of something else beside the images.
@pytest.mark.parametrize("members", [{"annotations.txt": b"x"}, {}, {"images/b.jpg": b"another"}])
def test_a_zip_of_something_else_hides_no_file(
    members: dict[str, bytes], raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf
) -> None:
    raw_folder.image("images/a.jpg")
    with zipfile.ZipFile(raw_folder.folder / "annotations.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    raw_folder.write([row(images=["images/a.jpg"])])
    _, first = run_and = prepared(run_on, raw_folder.folder)
    assert [found["images"] for found in data_of(*run_and)] == [[encoded()]]
    raw_folder.image("images/a.jpg", encoded((0, 0, 200)))
    run, second = prepared(run_on, raw_folder.folder)
    assert second.key != first.key
    assert [found["images"] for found in data_of(run, second)] == [[encoded((0, 0, 200))]]


def test_a_member_comes_before_a_file_of_its_name(raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf) -> None:
    raw_folder.image("a.jpg")
    with zipfile.ZipFile(raw_folder.folder / "images.zip", "w") as archive:
        archive.writestr("a.jpg", encoded((0, 0, 200)))
    raw_folder.write([row(images=["a.jpg"])])
    assert [found["images"] for found in data_of(*prepared(run_on, raw_folder.folder))] == [[encoded((0, 0, 200))]]


# A system turn.
SYSTEM = [{"from": "system", "value": "Be brief."}, *TURNS]


@pytest.mark.parametrize("prompt", ["compact", "llama3"])
def test_a_system_turn_is_kept_and_used_where_the_template_has_a_place(
    prompt: str, raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf, ledger_of: RowsOf
) -> None:
    raw_folder.image("a.jpg")
    raw_folder.write([row(conversations=SYSTEM, images=["a.jpg"]), row(images=["a.jpg"])])
    run, dataset = prepared(run_on, raw_folder.folder, overrides={"model.prompt": prompt})
    found = data_of(run, dataset)
    assert found[0]["roles"] == ["system", "user", "assistant"]
    assert found[0]["contents"][0] == "Be brief."
    assert ledger_of(run, dataset) == []
    noted = [(entry["row"], entry["reason"], entry["value"]) for entry in ledger_of(run, assemble(run, [dataset]))]
    assert noted == ([(0, "system-left-out", "Be brief.")] if prompt == "compact" else [])


# Other files and rows.
def test_rows_of_another_task_are_refused_by_name(raw_folder: RawFolder, run_on: RunOn) -> None:
    raw_folder.image("a.jpg")
    pair = {"images": ["a.jpg"], "prompt": "<image>Which?", "chosen": "A", "rejected": "B"}
    raw_folder.write([pair])
    with pytest.raises(InputError) as caught:
        prepared(run_on, raw_folder.folder)
    assert "json-list" in caught.value.problem
    assert "1 preference-pair" in caught.value.problem
    assert "remove `rejected`" in caught.value.remedy


def test_a_classification_table_is_refused_by_name(raw_folder: RawFolder, run_on: RunOn) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": ["a.jpg"], "label": [1]}), raw_folder.folder / "train.parquet")
    with pytest.raises(InputError) as caught:
        prepared(run_on, raw_folder.folder)
    assert "has no column that holds a conversation; its columns: image, label" in caught.value.problem
    assert "the label as the assistant's" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"data.format": "json-line"}, "'json-line' is no form"),
        ({"data.format": "json-lines/arrow"}, "'arrow' is no form"),
        ({"data.columns": "{question: q}"}, "'question', which is no field of a row"),
        ({"data.format": "arrow"}, "holds no subset"),
    ],
)
def test_an_unknown_form_or_column_is_named(
    changes: dict[str, str], problem: str, raw_folder: RawFolder, run_on: RunOn
) -> None:
    raw_folder.write([row(images=[])])
    with pytest.raises(ConfigError, match=problem):
        prepare(run_on(raw_folder.folder, changes), "raw")


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("train.jsonl", b'{"a": 1}\n{"a": \n', r"train\.jsonl, line 3, column 1: broken JSON"),
        ("train.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\xff", r"train\.jsonl\.gz cannot be decompressed"),
        ("train.tar", b"no tar", r"train\.tar cannot be read as a tar"),
        ("train.json", b'{"a": [', r"train\.json, line 1"),
    ],
)
def test_a_broken_file_is_named(name: str, data: bytes, problem: str, raw_folder: RawFolder, run_on: RunOn) -> None:
    (raw_folder.folder / name).write_bytes(data)
    with pytest.raises(InputError, match=problem):
        prepared(run_on, raw_folder.folder)


def test_a_tar_that_is_cut_off_loses_no_row_silently(raw_folder: RawFolder, run_on: RunOn) -> None:
    text = json.dumps({"query": "A?", "response": "B."}).encode()
    tarred(raw_folder.folder / "train.tar", [(f"{number}.json", text) for number in range(4)])
    whole = (raw_folder.folder / "train.tar").read_bytes()
    for end in (3 * 1024 + 100, 3 * 1024 + 520):
        (raw_folder.folder / "train.tar").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"train\.tar cannot be read as a tar"):
            prepared(run_on, raw_folder.folder)


def test_a_missing_shard_of_an_arrow_folder_is_named(raw_folder: RawFolder, run_on: RunOn) -> None:
    (raw_folder.folder / "data-00000-of-00002.arrow").write_bytes(b"")
    with pytest.raises(InputError, match="has 1 of 2 Arrow files"):
        prepared(run_on, raw_folder.folder)


@pytest.mark.parametrize("names", [("train.json", "train.jsonl"), ("a.jsonl", "b.parquet")])
def test_two_forms_side_by_side_are_named(names: tuple[str, str], raw_folder: RawFolder, run_on: RunOn) -> None:
    raw_folder.write([row(images=[])], names[0])
    raw_folder.write(json.dumps(row(images=[])), names[1])
    with pytest.raises(ConfigError, match=rf"several forms side by side: json-l.*{names[0]}.*{names[1]}"):
        find_sources(str(raw_folder.folder))
    (source,) = find_sources(str(raw_folder.folder), reading_of(DataSettings(format="json-lines"))).values()
    assert source.form == "json-lines"


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["train.json", "more.json"], "more.json"),
        (["train.jsonl", "train-2.jsonl", "a.json"], "a.json, train-2.jsonl"),
        (["train-0.jsonl", "train-1.jsonl", "val.jsonl"], ""),
        (["train.parquet", "train_2.parquet", "val.parquet"], "train_2.parquet"),
        (["train.json", *(f"{number}.json" for number in range(5))], "0.json, 1.json, 2.json and 2 more"),
    ],
)
def test_files_that_are_not_read_are_named(names: list[str], left: str, raw_folder: RawFolder) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in names:
        rows = [row(name)]
        if name.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist(rows), raw_folder.folder / name)
        elif name.endswith("jsonl"):
            (raw_folder.folder / name).write_text(json.dumps(rows[0]))
        else:
            raw_folder.write(rows, name)
    said = find_sources(str(raw_folder.folder))["raw"].described()
    assert said.partition("; not read: ")[2] == left


@pytest.mark.parametrize("place", ["", "cats"])
def test_rows_in_folders_below_are_named(place: str, raw_folder: RawFolder) -> None:
    folder = raw_folder.folder / place
    for inner in ("more", "dogs"):
        (folder / inner).mkdir(parents=True)
    RawFolder(folder).write([row("A")])
    RawFolder(folder).write([row("B")], "more/train.json")
    RawFolder(folder).write(json.dumps(row("C")), "dogs/train-0.jsonl")
    RawFolder(folder).write({"note": "no split's name"}, "dogs/1.json")
    (source,) = find_sources(str(raw_folder.folder)).values()
    assert source.described().partition("; not read: ")[2] == "dogs/train-0.jsonl, more/train.json"


@pytest.mark.parametrize("inner", [False, True])
def test_two_columns_of_one_name_are_named(inner: bool, raw_folder: RawFolder, run_on: RunOn) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    answers = [pa.array(["Yes."]), pa.array(["No."])]
    if inner:
        turn = pa.StructArray.from_arrays([pa.array(["user"]), *answers], names=["role", "content", "content"])
        table = pa.table({"messages": pa.ListArray.from_arrays([0, 1], turn)})
    else:
        table = pa.table([pa.array(["Why?"]), *answers], names=["query", "response", "response"])
    pq.write_table(table, raw_folder.folder / "train.parquet")
    name = "messages.content" if inner else "response"
    with pytest.raises(InputError, match=rf"train\.parquet has two columns of the name '{name}'"):
        prepared(run_on, raw_folder.folder)


def test_a_second_member_of_one_kind_is_named(raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf) -> None:
    question = {"query": "<image>Is this a cat?", "response": "Yes."}
    members = [
        *(("1.json", json.dumps(question | {"response": answer}).encode()) for answer in ("Yes.", "No.")),
        ("2.json", json.dumps(question).encode()),
        ("2.jpg", encoded()),
        ("2.JPG", encoded((0, 0, 200))),
        ("3.json", b'{"query": "Why?", "response": "So.", "response": "Thus."}'),
        ("4.json", json.dumps(question).encode()),
        ("4.jpg", encoded()),
    ]
    tarred(raw_folder.folder / "train.tar", members)
    run, dataset = prepared(run_on, raw_folder.folder, overrides={"data.max_dropped": "1"})
    found = [(entry["row"], entry["reason"], entry["value"]) for entry in ledger_of(run, dataset)]
    assert [(row, reason) for row, reason, _ in found] == [(0, "key-unknown"), (1, "key-unknown"), (2, "key-twice")]
    assert ["1.json" in found[0][2], "2.JPG" in found[1][2], found[2][2]] == [True, True, "response"]


def test_a_member_that_a_key_of_the_row_hides_is_named(raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf) -> None:
    rows = [{"query": "Why?", "response": "So."}, {"query": "Who?", "response": "Me.", "cls": None}]
    members = [(f"{number}.json", json.dumps(each).encode()) for number, each in enumerate(rows)]
    tarred(raw_folder.folder / "train.tar", [members[0], ("0.query", b"Another?"), members[1], ("1.cls", b"3")])
    raw_folder.write([row()], "val.json")
    run = run_on(raw_folder.folder, {"data.format": "webdataset", "data.ignore": "[cls]"})
    ((entry),) = ledger_of(run, prepare(run, "raw"))
    assert (entry["row"], entry["reason"], entry["value"]) == (0, "key-unknown", "row: 'member 0.query'")


# Rows that are too large for memory, in files whose readers need not meet them whole.
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_of_an_arrow_file_is_bounded(
    dictionary: bool, raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    texts = pa.array(["x" * 1001, "y", "x" * 1001])
    table = pa.table({"query": texts.dictionary_encode() if dictionary else texts, "response": ["A", "B", "C"]})
    with pa.ipc.new_stream(str(raw_folder.folder / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
    monkeypatch.setattr(parquet_file, "ROW_BYTES", 1000)
    monkeypatch.setattr(parquet_file, "SLICE_BYTES", 500)
    run, dataset = prepared(run_on, raw_folder.folder)
    assert [(entry["row"], entry["reason"]) for entry in ledger_of(run, dataset)] == [
        (0, "row-bytes"),
        (2, "row-bytes"),
    ]


def test_equal_texts_of_an_arrow_dictionary_are_one_object(raw_folder: RawFolder) -> None:
    """A file of 100 MB may repeat one text in every row."""
    import pyarrow as pa

    texts = pa.array(["x" * 1000] * 3).dictionary_encode()
    with pa.ipc.new_stream(
        str(raw_folder.folder / "data-00000-of-00001.arrow"), pa.schema({"query": texts.type})
    ) as file:
        file.write_table(pa.table({"query": texts}))
    (source,) = find_sources(str(raw_folder.folder)).values()
    rows = list(source.rows.read(lambda _: True))
    assert [row["query"] for row in rows] == ["x" * 1000] * 3
    assert len({id(row["query"]) for row in rows}) == 1


@pytest.mark.parametrize(("limit", "most"), [("ROW_BYTES", 2000), ("ROW_VALUES", 3)])
def test_a_row_of_a_tar_is_bounded(
    limit: str,
    most: int,
    raw_folder: RawFolder,
    run_on: RunOn,
    ledger_of: RowsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = json.dumps({"query": "<image><image>Which?", "response": "Both."}).encode()
    pictures = [encoded((0, 0, 200)), encoded()]
    large = [(f"0.{number}.jpg", pictures[number % 2]) for number in range(4)]
    fitting = [(f"1.{number}.jpg", data) for number, data in enumerate(pictures)]
    tarred(raw_folder.folder / "train.tar", [("0.json", text), *large, *fitting, ("1.json", text)])
    monkeypatch.setattr(tar_rows, limit, most)
    run, dataset = prepared(run_on, raw_folder.folder)
    assert [(entry["row"], entry["reason"]) for entry in ledger_of(run, dataset)] == [(0, "row-bytes")]
    assert dataset.summary["kept"] == 1


# Names and beginnings of files.
QUERY = {"query": "Why?", "response": "So."}
LONG = {"query": "Why?", "response": "x" * 100_000}  # more than is read of a file to see its form


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("rows.json", f"{json.dumps(LONG)}\n{json.dumps(QUERY)}\n", "json-lines"),
        ("rows.json", json.dumps(LONG), "json-lines"),
        ("rows.json", json.dumps({"info": LONG, "data": [QUERY]}), "json-object"),
        ("rows.JSON.GZ", json.dumps([QUERY]), "json-list"),
        ("rows.jsonl", json.dumps(QUERY), "json-lines"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_neither_the_name_nor_a_long_beginning_hides_the_form(
    name: str, text: str, form: str, packed: bool, raw_folder: RawFolder
) -> None:
    data = text.encode()
    (raw_folder.folder / name).write_bytes(gzip.compress(data) if packed else data)
    (source,) = find_sources(str(raw_folder.folder)).values()
    assert source.described() == f"{form} with rows of the form query"
    assert list(source.rows.read(lambda _: True))[-1] in (QUERY, LONG)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["train.json", "rows.jsonl"])
def test_another_encoding_is_named(name: str, encoding: str, raw_folder: RawFolder, run_on: RunOn) -> None:
    text = f"\ufeff{json.dumps([row()])}" if encoding == "utf-16-be" else json.dumps([row()])
    (raw_folder.folder / name).write_text(text, encoding=encoding)
    with pytest.raises(InputError, match=rf"{name} is UTF-16, not UTF-8"):
        prepared(run_on, raw_folder.folder)


def test_files_of_no_known_form_are_named(raw_folder: RawFolder) -> None:
    raw_folder.write({"rows": [row()]}, "rows.json")
    (raw_folder.folder / "cats").mkdir()
    raw_folder.write("{}", "cats/mine.arrow")
    with pytest.raises(ConfigError, match=r"holds no subset\. rows\.json, cats/mine\.arrow: no known form") as caught:
        find_sources(str(raw_folder.folder))
    assert "--format" in caught.value.remedy
    with pytest.raises(ConfigError, match=r"another form than parquet"):
        find_sources(str(raw_folder.folder), reading_of(DataSettings(format="parquet")))


def test_a_tar_of_images_holds_no_rows(raw_folder: RawFolder) -> None:
    import tarfile

    with tarfile.open(raw_folder.folder / "images.tar", "w") as tar:
        tar.add(raw_folder.folder / raw_folder.image("a.jpg"), "a.jpg")
    raw_folder.write(json.dumps(row(images=["a.jpg"])), "rows.jsonl")
    (source,) = find_sources(str(raw_folder.folder)).values()
    assert source.form == "json-lines"


def test_splits_of_a_saved_set_are_subsets(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"query": ["A?"], "response": ["B."]})
    for split in ("train", "validation"):
        (tmp_path / "cats" / split).mkdir(parents=True)
        with pa.ipc.new_stream(str(tmp_path / "cats" / split / "data-00000-of-00001.arrow"), table.schema) as file:
            file.write_table(table)
    (tmp_path / "cats/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    for place in (tmp_path, tmp_path / "cats"):
        found = find_sources(str(place))
        assert {name: source.split for name, source in found.items()} == {
            "cats": "train",
            "cats-validation": "validation",
        }
        assert [source.described() for source in found.values()] == ["arrow with rows of the form query"] * 2
