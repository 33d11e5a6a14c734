import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.step import prepare, resolve_subsets
from mantis.errors import ConfigError, InputError
from mantis.runs.records import State, read_record
from mantis.store.opening import open_store
from tests.fixtures.data import MakeJpeg, RawFolder, RowsOf, RunOn


def drops(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["id"]: entry["reason"] for entry in entries if entry["action"] == "dropped"}


def test_each_bad_row_has_its_line_in_the_ledger_and_the_others_are_kept(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn, ledger_of: RowsOf, data_of: RowsOf
) -> None:
    whole = make_jpeg()
    raw_folder.image("good.jpg", whole)
    raw_folder.image("cut.jpg", whole[: len(whole) // 2])
    raw_folder.image("empty.jpg", b"")
    raw_folder.image("huge.png", make_jpeg(form="PNG", size=(3000, 2000)))
    raw_folder.image("fat.bmp", make_jpeg(form="BMP", size=(300, 300)))
    outside = raw_folder.folder.parent / "outside.jpg"
    outside.write_bytes(whole)
    (raw_folder.folder / "link.jpg").symlink_to(outside)
    (raw_folder.folder / "inner-link.jpg").symlink_to("good.jpg")
    (raw_folder.folder / "folder.jpg").mkdir()
    os.mkfifo(raw_folder.folder / "pipe.jpg")
    rows = [
        raw_folder.row("good", "good.jpg"),
        raw_folder.row("missing", "nowhere.jpg"),
        raw_folder.row("cut", "good.jpg", "cut.jpg"),
        raw_folder.row("empty", "empty.jpg"),
        raw_folder.row("huge", "huge.png"),
        raw_folder.row("fat", "fat.bmp"),
        raw_folder.row("up", "../outside.jpg"),
        raw_folder.row("absolute", str(outside)),
        raw_folder.row("link", "link.jpg"),
        raw_folder.row("inner-link", "inner-link.jpg"),
        raw_folder.row("folder", "folder.jpg"),
        raw_folder.row("pipe", "pipe.jpg"),
        raw_folder.row("null", "a\0b.jpg"),
        raw_folder.row("roles", conversation=[{"role": "bot", "content": "Hi"}]),
        raw_folder.row("unmarked", "good.jpg", conversation=raw_folder.row("x")["conversation"]),
        "no row",
        raw_folder.row("good", "good.jpg"),
    ]
    limits = {"data.max_image_pixels": "1000000", "data.max_image_bytes": "200000"}
    run = run_on(raw_folder.write(rows), limits)
    dataset = prepare(run, "raw")
    entries = ledger_of(run, dataset)
    assert drops(entries) == {
        "missing": "image-missing",
        "cut": "image-broken",
        "empty": "image-unknown",
        "huge": "image-pixels",
        "fat": "image-bytes",
        "up": "image-outside",
        "absolute": "image-outside",
        "link": "image-outside",
        "folder": "image-missing",
        "pipe": "image-missing",
        "null": "images-malformed",
        "roles": "role-unknown",
        "row-15": "row-malformed",
        "good#2": "duplicate",
    }
    assert [entry["id"] for entry in entries if entry["action"] == "repaired"] == ["unmarked"]
    assert [entry["value"] for entry in entries if entry["id"] == "good#2"] == ["the content of row 0"]
    kept = data_of(run, dataset)
    assert [(row["row"], row["id"]) for row in kept] == [(0, "good"), (9, "inner-link"), (14, "unmarked")]
    assert kept[0]["images"] == [whole]
    assert (kept[0]["widths"], kept[0]["heights"], kept[0]["paths"]) == ([40], [30], ["good.jpg"])
    assert dataset.summary == {
        "form": dataset.summary["form"],
        "rows": 17,
        "kept": 3,
        "dropped": 14,
        "unusable": 13,
        "repaired": 1,
        "images": 3,
        "image_bytes": 3 * len(whole),
        "content": dataset.summary["content"],
    }
    fat = next(entry for entry in entries if entry["id"] == "fat")
    assert (fat["row"], fat["subset"], fat["threshold"]) == (5, "raw", "200000")
    assert fat["value"].startswith("fat.bmp: ")


KINDS = st.sampled_from(["good", "unmarked", "missing", "cut", "order", "twice", "no mapping", "text"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(KINDS, min_size=1, max_size=30))
def test_ledger_and_dataset_are_the_input(
    kinds: Any,
    tmp_path_factory: pytest.TempPathFactory,
    make_jpeg: MakeJpeg,
    run_on: RunOn,
    ledger_of: RowsOf,
    data_of: RowsOf,
    raw_folder: RawFolder,
) -> None:
    whole = make_jpeg()
    folder = type(raw_folder)(tmp_path_factory.mktemp("any") / "raw")
    folder.image("cut.jpg", whole[:200])
    made = {
        "missing": lambda name: folder.row(name, "nowhere.jpg"),
        "cut": lambda name: folder.row(name, "cut.jpg"),
        "order": lambda name: folder.row(name, conversation=list(reversed(folder.row("x")["conversation"]))),
        "twice": lambda name: folder.row("twice"),
        "no mapping": lambda name: [name],
        "text": lambda name: folder.row(name),
    }
    rows: list[Any] = []
    for number, kind in enumerate(kinds):
        name = f"{kind}-{number}"
        if kind in made:
            rows.append(made[kind](name))
        else:
            images = [folder.image(f"{number}-{at}.jpg", make_jpeg((number, at, 0))) for at in range(number % 3 + 1)]
            fields = {} if kind == "good" else {"conversation": folder.row("x")["conversation"]}
            rows.append(folder.row(name, *images, **fields))
    run = run_on(folder.write(rows), store=open_store(tmp_path_factory.mktemp("store").as_uri()))
    if not {"good", "unmarked", "text", "twice"} & set(kinds):
        with pytest.raises(InputError, match=f"none of {len(kinds)} rows"):
            prepare(run, "raw")
        return
    dataset = prepare(run, "raw")
    kept, entries = data_of(run, dataset), ledger_of(run, dataset)
    dropped = [entry["row"] for entry in entries if entry["action"] == "dropped"]
    assert sorted(dropped + [row["row"] for row in kept]) == list(range(len(rows)))
    assert [row["row"] for row in kept] == sorted(row["row"] for row in kept)
    for row in kept:
        assert row["paths"] == rows[row["row"]]["images"]
        assert row["images"] == [(folder.folder / path).read_bytes() for path in row["paths"]]
        assert "".join(row["contents"]).count("<image>") == len(row["images"])


def test_broken_json_ends_the_step_with_its_place(raw_folder: RawFolder, run_on: RunOn) -> None:
    run = run_on(raw_folder.write('[{"id": 1},\n{"id": 2,}]'))
    with pytest.raises(InputError, match=r"train\.json, line 2, column \d+: broken JSON"):
        prepare(run, "raw")


def test_damage_far_into_the_file_ends_the_step_the_same_way(raw_folder: RawFolder, run_on: RunOn) -> None:
    good = json.dumps([raw_folder.row(f"row-{number}") for number in range(3000)])
    run = run_on(raw_folder.write(good[:-1] + ",\n oops]"))
    with pytest.raises(InputError, match=r"line 2, column 2: broken JSON"):
        prepare(run, "raw")


def test_nothing_usable_is_refused_with_the_first_reason(raw_folder: RawFolder, run_on: RunOn) -> None:
    run = run_on(raw_folder.write([raw_folder.row("a", "nowhere.jpg")]))
    with pytest.raises(InputError, match=r"none of 1 rows can be used \(1 image-missing\)") as caught:
        prepare(run, "raw")
    assert "Put the file below the folder" in caught.value.remedy
    assert "The first row: 0, image-missing: nowhere.jpg." in caught.value.remedy


def test_more_dropped_rows_than_allowed_end_the_step_and_keep_the_dataset(
    raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf
) -> None:
    rows = [raw_folder.row(f"{number}") for number in range(18)]
    copies = [{**rows[0], "id": f"copy-{number}"} for number in range(30)]
    bad = [raw_folder.row("bad-0", "nowhere.jpg"), raw_folder.row("bad-1", tools=["x"])]
    folder = raw_folder.write([*rows, *bad, *copies])
    strict = run_on(folder, {"data.max_dropped": "0.03"})
    with pytest.raises(InputError) as caught:
        prepare(strict, "raw")
    assert caught.value.problem.startswith("raw: 2 of 50 rows cannot be used, 4.0% (30 duplicate, ")
    assert "The source is read as" in caught.value.problem
    assert "--set data.max_dropped=0.04" in caught.value.remedy
    record = read_record(strict.store, strict.id, "prepare-raw")
    assert record is not None
    assert (record.state, record.summary["kept"]) == (State.FAILED, 18)
    assert caught.value.problem in record.reason
    allowed = prepare(run_on(folder, {"data.max_dropped": "0.04"}), "raw")
    assert allowed.key == record.key, "the limit decides no content"
    assert len(data_of(strict, allowed)) == 18
    again = read_record(strict.store, strict.id, "prepare-raw")
    assert again is not None
    assert again.state is State.REUSED


def test_rows_that_a_limit_of_the_recipe_leaves_out_do_not_count(raw_folder: RawFolder, run_on: RunOn) -> None:
    images = [raw_folder.image(f"{number}.jpg") for number in range(3)]
    folder = raw_folder.write([raw_folder.row("one", images[0]), raw_folder.row("three", *images)])
    run = run_on(folder, {"data.subsets": "[{name: raw, max_images: 2}]", "data.max_dropped": "0"})
    dataset = prepare(run, "raw")
    assert (dataset.summary["dropped"], dataset.summary["unusable"]) == (1, 0)


def test_an_empty_list_is_refused(raw_folder: RawFolder, run_on: RunOn) -> None:
    with pytest.raises(InputError, match="none of 0 rows"):
        prepare(run_on(raw_folder.write([])), "raw")


def test_a_changed_image_changes_the_dataset_and_the_number_of_workers_does_not(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn
) -> None:
    raw_folder.image("a.jpg")
    folder = raw_folder.write([raw_folder.row("a", "a.jpg")])
    first = prepare(run_on(folder), "raw")
    assert prepare(run_on(folder, {"data.workers": "1"}), "raw").key == first.key
    raw_folder.image("a.jpg", make_jpeg((1, 2, 3)))
    assert prepare(run_on(folder), "raw").key != first.key


def test_what_a_killed_attempt_left_is_no_part_of_the_result(raw_folder: RawFolder, run_on: RunOn) -> None:
    run = run_on(raw_folder.write([raw_folder.row("a")]))
    made = prepare(run, "raw")
    prefix = made.key
    run.store.delete(f"{prefix}/manifest.json")
    run.store.put(f"{prefix}/data.lance/data/half.lance", b"half")
    again = prepare(run, "raw")
    assert again.key == made.key
    assert not any("half" in file.name for file in again.files)


def test_subsets_of_a_folder(raw_folder: RawFolder, tmp_path: Path, run_on: RunOn) -> None:
    assert resolve_subsets(run_on(raw_folder.write([]))) == ["raw"]
    many = type(raw_folder)(tmp_path / "many")
    type(raw_folder)(many.folder / "NLVR 2").write([])
    type(raw_folder)(many.folder / "coinstruct").write([], name="rows.json")
    type(raw_folder)(many.folder / "settings").write({"not": "rows"}, name="config.json")
    (many.folder / "empty").mkdir()
    assert resolve_subsets(run_on(many.folder)) == ["nlvr-2", "coinstruct"]
    assert resolve_subsets(run_on(many.folder, {"data.subsets": "[{name: coinstruct}]"})) == ["coinstruct"]
    with pytest.raises(ConfigError, match=r"names star, .*Choose from nlvr-2, coinstruct"):
        resolve_subsets(run_on(many.folder, {"data.subsets": "[{name: coinstruct}, {name: star}]"}))


def test_a_source_that_is_not_there_is_refused(tmp_path: Path, run_on: RunOn) -> None:
    with pytest.raises(ConfigError, match=r"data\.source = .*nowhere.* does not exist"):
        resolve_subsets(run_on(tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match="holds no subset"):
        resolve_subsets(run_on(tmp_path / "bare"))
    with pytest.raises(ConfigError, match="neither a folder, a bucket nor a data set of the hub"):
        resolve_subsets(run_on("ftp://host/raw"))


def test_two_json_files_need_a_name(raw_folder: RawFolder, run_on: RunOn) -> None:
    raw_folder.write([], name="a.json")
    raw_folder.write([], name="b.json")
    with pytest.raises(InputError, match=r"rows: a\.json, b\.json"):
        prepare(run_on(raw_folder.folder), "raw")


def test_the_real_conversations_are_all_kept(
    test_data: Path, run_on: RunOn, ledger_of: RowsOf, data_of: RowsOf
) -> None:
    run = run_on(test_data / "mantis-chat")
    dataset = prepare(run, "mantis-chat")
    assert dataset.summary["rows"] == 100
    assert dataset.summary["kept"] == 100 - len(drops(ledger_of(run, dataset)))
    kept = data_of(run, dataset)
    assert len(kept) == 100
    assert sum(len(row["images"]) for row in kept) == 377
    raw = json.loads((test_data / "mantis-chat" / "train.json").read_text())
    for row in (kept[0], kept[57], kept[99]):
        assert row["paths"] == raw[row["row"]]["images"]
        assert row["images"] == [(test_data / "mantis-chat" / path).read_bytes() for path in row["paths"]]


def test_generated_data_take_the_same_path(run_on: RunOn, data_of: RowsOf) -> None:
    run = run_on("generated", {"data.generated_conversations": "60"})
    assert resolve_subsets(run) == ["demo-multi", "demo-single"]
    datasets = [prepare(run, subset) for subset in resolve_subsets(run)]
    assert sum(dataset.summary["kept"] for dataset in datasets) == 60  # type: ignore[misc]
    assert all(dataset.summary["dropped"] == 0 for dataset in datasets)
    assert data_of(run, datasets[0])[0]["widths"][0] == 48
