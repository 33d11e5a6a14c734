import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.step import prepare, resolve_subsets
from mantis.errors import ConfigError, InputError
from mantis.store.base import open_store


def drops(entries):
    return {entry["id"]: entry["reason"] for entry in entries if entry["action"] == "dropped"}


def test_each_bad_row_has_its_line_in_the_ledger_and_the_others_are_kept(source, jpeg, run_on, ledger_of, data_of):
    whole = jpeg()
    source.image("good.jpg", whole)
    source.image("cut.jpg", whole[: len(whole) // 2])
    source.image("empty.jpg", b"")
    source.image("huge.png", jpeg(form="PNG", size=(3000, 2000)))
    source.image("fat.bmp", jpeg(form="BMP", size=(300, 300)))
    outside = source.folder.parent / "outside.jpg"
    outside.write_bytes(whole)
    (source.folder / "link.jpg").symlink_to(outside)
    (source.folder / "inner-link.jpg").symlink_to("good.jpg")
    (source.folder / "folder.jpg").mkdir()
    os.mkfifo(source.folder / "pipe.jpg")
    rows = [
        source.row("good", "good.jpg"),
        source.row("missing", "nowhere.jpg"),
        source.row("cut", "good.jpg", "cut.jpg"),
        source.row("empty", "empty.jpg"),
        source.row("huge", "huge.png"),
        source.row("fat", "fat.bmp"),
        source.row("up", "../outside.jpg"),
        source.row("absolute", str(outside)),
        source.row("link", "link.jpg"),
        source.row("inner-link", "inner-link.jpg"),
        source.row("folder", "folder.jpg"),
        source.row("pipe", "pipe.jpg"),
        source.row("null", "a\0b.jpg"),
        source.row("roles", conversation=[{"role": "bot", "content": "Hi"}]),
        source.row("unmarked", "good.jpg", conversation=source.row("x")["conversation"]),
        "no row",
        source.row("good", "good.jpg"),
    ]
    limits = {"data__max_image_pixels": "1000000", "data__max_image_bytes": "200000"}
    run = run_on(source.write(rows), **limits)
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
        "null": "image-missing",
        "roles": "role-unknown",
        "row-15": "row-malformed",
        "good": "id-duplicate",
    }
    assert [entry["id"] for entry in entries if entry["action"] == "repaired"] == ["unmarked"]
    kept = data_of(run, dataset)
    assert [(row["row"], row["id"]) for row in kept] == [(0, "good"), (9, "inner-link"), (14, "unmarked")]
    assert kept[0]["images"] == [whole]
    assert (kept[0]["widths"], kept[0]["heights"], kept[0]["paths"]) == ([40], [30], ["good.jpg"])
    assert dataset.summary == {
        "rows": 17,
        "kept": 3,
        "dropped": 14,
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
def test_ledger_and_dataset_are_the_input(kinds, tmp_path_factory, jpeg, run_on, ledger_of, data_of, source):
    whole = jpeg()
    folder = type(source)(tmp_path_factory.mktemp("any") / "raw")
    folder.image("cut.jpg", whole[:200])
    made = {
        "missing": lambda name: folder.row(name, "nowhere.jpg"),
        "cut": lambda name: folder.row(name, "cut.jpg"),
        "order": lambda name: folder.row(name, conversation=list(reversed(folder.row("x")["conversation"]))),
        "twice": lambda name: folder.row("twice"),
        "no mapping": lambda name: [name],
        "text": lambda name: folder.row(name),
    }
    rows = []
    for number, kind in enumerate(kinds):
        name = f"{kind}-{number}"
        if kind in made:
            rows.append(made[kind](name))
        else:
            images = [folder.image(f"{number}-{at}.jpg", jpeg((number, at, 0))) for at in range(number % 3 + 1)]
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


def test_broken_json_ends_the_step_with_its_place(source, run_on):
    run = run_on(source.write('[{"id": 1},\n{"id": 2,}]'))
    with pytest.raises(InputError, match=r"train\.json, line 2, column \d+: broken JSON"):
        prepare(run, "raw")


def test_damage_far_into_the_file_ends_the_step_the_same_way(source, run_on):
    good = json.dumps([source.row(f"row-{number}") for number in range(3000)])
    run = run_on(source.write(good[:-1] + ",\n oops]"))
    with pytest.raises(InputError, match=r"line 2, column 2: broken JSON"):
        prepare(run, "raw")


def test_nothing_usable_is_refused_with_the_first_reason(source, run_on):
    run = run_on(source.write([source.row("a", "nowhere.jpg")]))
    with pytest.raises(InputError, match=r"none of 1 rows can be used \(1 image-missing\).*row 0, .*nowhere\.jpg"):
        prepare(run, "raw")


def test_an_empty_list_is_refused(source, run_on):
    with pytest.raises(InputError, match="none of 0 rows"):
        prepare(run_on(source.write([])), "raw")


def test_a_changed_image_changes_the_dataset_and_the_number_of_workers_does_not(source, jpeg, run_on):
    source.image("a.jpg")
    folder = source.write([source.row("a", "a.jpg")])
    first = prepare(run_on(folder), "raw")
    assert prepare(run_on(folder, data__workers="1"), "raw").key == first.key
    source.image("a.jpg", jpeg((1, 2, 3)))
    assert prepare(run_on(folder), "raw").key != first.key


def test_what_a_killed_attempt_left_is_no_part_of_the_result(source, run_on):
    run = run_on(source.write([source.row("a")]))
    made = prepare(run, "raw")
    prefix = made.key
    run.store.delete(f"{prefix}/manifest.json")
    run.store.put(f"{prefix}/data.lance/data/half.lance", b"half")
    again = prepare(run, "raw")
    assert again.key == made.key
    assert not any("half" in file.name for file in again.files)


def test_subsets_of_a_folder(source, tmp_path, run_on):
    assert resolve_subsets(run_on(source.write([]))) == ["raw"]
    many = type(source)(tmp_path / "many")
    type(source)(many.folder / "NLVR 2").write([])
    type(source)(many.folder / "coinstruct").write([], name="rows.json")
    type(source)(many.folder / "settings").write({"not": "rows"}, name="config.json")
    (many.folder / "empty").mkdir()
    assert resolve_subsets(run_on(many.folder)) == ["nlvr-2", "coinstruct"]
    assert resolve_subsets(run_on(many.folder, data__subsets="[{name: coinstruct}]")) == ["coinstruct"]
    with pytest.raises(ConfigError, match=r"names star, .*It has: nlvr-2, coinstruct"):
        resolve_subsets(run_on(many.folder, data__subsets="[{name: coinstruct}, {name: star}]"))


def test_a_source_that_is_not_there_is_refused(tmp_path, run_on):
    with pytest.raises(ConfigError, match=r"data\.source = .*nowhere.* does not exist"):
        resolve_subsets(run_on(tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match="holds no subset"):
        resolve_subsets(run_on(tmp_path / "bare"))
    with pytest.raises(ConfigError, match="neither a folder nor a bucket"):
        resolve_subsets(run_on("ftp://host/raw"))


def test_two_json_files_need_a_name(source, run_on):
    source.write([], name="a.json")
    source.write([], name="b.json")
    with pytest.raises(InputError, match=r"found: a\.json, b\.json"):
        prepare(run_on(source.folder), "raw")


def test_the_real_conversations_are_all_kept(test_data, run_on, ledger_of, data_of):
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


def test_generated_data_take_the_same_path(run_on, data_of):
    run = run_on("generated", data__generated_conversations="60")
    assert resolve_subsets(run) == ["demo-multi", "demo-single"]
    datasets = [prepare(run, subset) for subset in resolve_subsets(run)]
    assert sum(dataset.summary["kept"] for dataset in datasets) == 60
    assert all(dataset.summary["dropped"] == 0 for dataset in datasets)
    assert data_of(run, datasets[0])[0]["widths"][0] == 48


def test_prepared_in_minio(source, run_on, minio_store, data_of):
    source.image("a.jpg")
    run = run_on(source.write([source.row("a", "a.jpg"), source.row("b")]), store=minio_store)
    dataset = prepare(run, "raw")
    assert [row["id"] for row in data_of(run, dataset)] == ["a", "b"]
    assert dataset.fingerprint in dataset.key
