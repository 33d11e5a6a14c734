"""What becomes of rows: public bug reports, videos, and any row at all."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.prepare.reasons import reasons
from components.data.prepare.video_frames import frame_places
from components.data.step import assemble, prepare
from components.reporting.collect.artifact_reader import Reader
from components.reporting.collect.collect_data import ledger_reasons
from mantis.artifacts.manifest import Manifest
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import InputError
from mantis.models.family import IGNORE
from mantis.models.registry import family
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store
from tests.fixtures.data import MakeJpeg, RawFolder, RowsOf, RunOn

FPS, LENGTH = 10, 60  # of the video, whose frame number n has the grey level 4 n


def llava(name: str, image: str, question: str, answer: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


def test_conversations_about_one_image_share_its_id_and_are_all_kept(
    raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf, data_of: RowsOf
) -> None:
    """PhoenixZ810/MG-LLaVA issue 1: LLaVA's sets use the id of the image."""
    image = raw_folder.image("im0.jpg")
    asked = [("What is it?", "A bus."), ("Describe it.", "A long red bus."), ("What is it?", "A bus.")]
    run = run_on(raw_folder.write([llava("000000033471", image, *texts) for texts in asked]))
    dataset = prepare(run, "raw")
    assert [row["id"] for row in data_of(run, dataset)] == ["000000033471", "000000033471#2"]
    assert [(entry["row"], entry["id"], entry["reason"]) for entry in ledger_of(run, dataset)] == [
        (1, "000000033471#2", "id-repeated"),
        (2, "000000033471#3", "duplicate"),
    ]


def test_a_changed_image_is_noticed_beside_a_null(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn, data_of: RowsOf
) -> None:
    """hiyouga/LLaMA-Factory issue 7266: tables that unite sources hold null under the keys of the others."""
    image = raw_folder.image("a.jpg", make_jpeg((0, 0, 0)))
    folder = raw_folder.write([{**llava("a", image, "Colour?", "Blue."), "images": None}])
    first = prepare(run_on(folder), "raw")
    raw_folder.image("a.jpg", make_jpeg((0, 0, 255)))
    run = run_on(folder)
    second = prepare(run, "raw")
    assert second.key != first.key
    assert data_of(run, second)[0]["images"] == [make_jpeg((0, 0, 255))]


def test_a_null_beside_a_value_does_not_hide_it(raw_folder: RawFolder, run_on: RunOn, data_of: RowsOf) -> None:
    image = raw_folder.image("a.jpg")
    turns = [{"role": "user", "content": "<image> Colour?"}, {"role": "assistant", "content": "Blue."}]
    both = [{**turn, "from": None, "value": None} for turn in turns]
    rows = [
        {"id": "a", "images": [image], "conversations": None, "conversation": [turns[0], {**turns[1], "content": "1"}]},
        {"id": "b", "images": [image], "conversations": both},
        {"id": "c", "images": [], "image": image, "conversation": [turns[0], {**turns[1], "content": "3"}]},
        {"id": "d", "image": "", "conversation": [{**turns[0], "content": "Colour?"}, turns[1]]},
    ]
    run = run_on(raw_folder.write(rows), {"data.max_dropped": "0"})
    kept = data_of(run, prepare(run, "raw"))
    assert [(row["id"], len(row["images"])) for row in kept] == [("a", 1), ("b", 1), ("c", 1), ("d", 0)]


def test_a_text_with_the_image_token_drops_its_row_alone(
    raw_folder: RawFolder, run_on: RunOn, ledger_of: RowsOf
) -> None:
    """One transcript of 21 has the word that Fuyu's vocabulary uses for patches."""
    image = raw_folder.image("a.jpg")
    rows = [raw_folder.row(f"s{number}", image) for number in range(20)]
    talk = [{"role": "user", "content": "Who talks?"}, {"role": "assistant", "content": "|SPEAKER| one."}]
    overrides = {"model.family": "fuyu", "model.prompt": "fuyu", "data.max_dropped": "0.05"}
    run = run_on(raw_folder.write([*rows, raw_folder.row("talk", conversation=talk)]), overrides)
    mixture = assemble(run, [prepare(run, "raw")])
    assert MixtureReader(run.store, mixture).ids == [f"s{number}" for number in range(20)]
    (entry,) = ledger_of(run, mixture)
    assert (entry["id"], entry["action"], entry["reason"]) == ("talk", "dropped", "text-image-token")
    with pytest.raises(InputError, match=r"raw: 1 of 21 rows cannot be used, 4\.8% \(1 text-image-token\)"):
        assemble(run_on(raw_folder.folder, overrides | {"data.max_dropped": "0.04"}), [prepare(run, "raw")])


@pytest.fixture(scope="session")
def video() -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS, width=64, height=48, pix_fmt="yuv420p")
        for number in range(LENGTH):
            frame = np.full((48, 64, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def level(data: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean())


def test_frames_stand_evenly_for_a_video(
    raw_folder: RawFolder, video: bytes, run_on: RunOn, ledger_of: RowsOf, data_of: RowsOf
) -> None:
    raw_folder.image("clips/a.mp4", video)
    raw_folder.image("cut.mp4", video[:500])
    still = raw_folder.image("still.jpg")
    turns = [{"role": "user", "content": "Before <image>, then <video>. What?"}, {"role": "assistant", "content": "A."}]
    rows = [
        {"id": "a", "video": "clips/a.mp4", "conversation": [{**turns[0], "content": "What?"}, turns[1]]},
        {"id": "both", "videos": ["clips/a.mp4"], "images": [still], "conversation": turns},
        {"id": "away", "video": "away.mp4", "conversation": turns},
        {"id": "cut", "video": "cut.mp4", "conversation": [{**turns[0], "content": "<video>"}, turns[1]]},
    ]
    run = run_on(raw_folder.write(rows))
    dataset = prepare(run, "raw")
    kept, both = data_of(run, dataset)
    assert kept["contents"][0] == "<image>" * 8 + "What?"
    assert kept["paths"] == [f"clips/a.mp4#{number}" for number in range(1, 9)]
    assert [level(image) for image in kept["images"]] == pytest.approx([4 * at for at in range(0, 60, 8)], abs=6)
    assert both["contents"][0] == "Before <image>, then " + "<image>" * 8 + ". What?"
    assert both["paths"][0] == "still.jpg"
    reasons_of = {(entry["id"], entry["reason"]) for entry in ledger_of(run, dataset)}
    assert {("a", "video-frames"), ("both", "video-frames")} <= reasons_of
    assert {("away", "image-missing"), ("cut", "video-broken")} <= reasons_of
    few = run_on(raw_folder.folder, {"data.max_frames": "3"})
    assert [len(row["images"]) for row in data_of(few, prepare(few, "raw"))] == [3, 4]
    limited = run_on(raw_folder.folder, {"data.max_video_bytes": "1000", "data.subsets": "[{name: raw}]"})
    with pytest.raises(InputError, match="video-bytes"):
        prepare(limited, "raw")


def test_a_changed_video_is_noticed(raw_folder: RawFolder, video: bytes, run_on: RunOn) -> None:
    raw_folder.image("a.mp4", video)
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A."}]
    folder = raw_folder.write([{"id": "a", "video": "a.mp4", "conversation": turns}])
    first = prepare(run_on(folder), "raw")
    raw_folder.image("a.mp4", video + b"\0" * 100)
    assert prepare(run_on(folder), "raw").key != first.key


@given(total=st.integers(1, 5000), count=st.integers(1, 64))
def test_the_places_of_frames_are_the_official_ones(total: int, count: int) -> None:
    """TIGER-AI-Lab/Mantis, mantis/train/data.py, ChatVideoDataset.getitem, written out."""
    official = np.arange(0, total, int(np.ceil(total / count))).astype(int) if total > count else np.arange(total)
    assert frame_places(total, 25.0, count=count) == official.tolist()
    assert 1 <= len(frame_places(total, 25.0, count=count)) <= count


def test_images_that_look_alike_are_noted_in_the_ledger_and_in_the_report(
    raw_folder: RawFolder, photographs: list[bytes], run_on: RunOn, ledger_of: RowsOf
) -> None:
    whole = Image.open(io.BytesIO(photographs[0])).convert("RGB")
    smaller = io.BytesIO()
    whole.resize((whole.width // 2, whole.height // 2)).save(smaller, "JPEG", quality=80)
    names = [
        raw_folder.image("a.jpg", photographs[0]),
        raw_folder.image("half.jpg", smaller.getvalue()),
        raw_folder.image("other.jpg", photographs[1]),
    ]
    rows = [raw_folder.row(name, name) for name in names]
    again = raw_folder.row("again", names[2]) | {"id": names[2]}
    run = run_on(raw_folder.write([*rows, again, "no row"]))
    dataset = prepare(run, "raw")
    entry = ledger_of(run, dataset)[-1]
    assert (entry["id"], entry["action"], entry["reason"]) == ("half.jpg", "noted", "image-near-duplicate")
    assert "from a.jpg of row 0" in entry["value"]
    shown = {(found.action, found.reason, found.count) for found in ledger_reasons(Reader(run.store), [dataset])}
    assert shown == {
        ("noted", "image-near-duplicate", 1),
        ("repaired", "id-repeated", 1),
        ("dropped", "row-malformed", 1),
    }


def test_flags_weights_and_the_last_answer_reach_training(raw_folder: RawFolder, run_on: RunOn) -> None:
    turns = [
        {"role": "user", "content": "one?"}, {"role": "assistant", "content": "red", "loss": False},
        {"role": "user", "content": "two?"}, {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "three?"}, {"role": "assistant", "content": "green"},
        {"role": "user", "content": "four?"}, {"role": "assistant", "content": "grey", "train": False},
    ]  # fmt: skip
    folder = raw_folder.write([{"id": "a", "weight": 2.5, "conversation": turns}])
    assert learned_of(run_on(folder)) == (["blue", "green"], 2.5)
    assert learned_of(run_on(folder, {"data.learn": "last"})) == (["green"], 2.5)


def learned_of(run: Run) -> tuple[list[str], float]:
    """The text under the loss mask of the only sample, and its weight."""
    mixture: Manifest = assemble(run, [prepare(run, "raw")])
    reader = MixtureReader(run.store, mixture)
    (sample,) = reader.take([0])
    processor = family(run.recipe.model.family).processor(reader.tokenizer(), run.recipe.model)
    labels = processor.encode(sample.conversation).labels
    assert sum(label != IGNORE for label in labels) == reader.targets[0]
    stretches = "".join(str(reader.tokenizer().decode([label])) if label != IGNORE else "\0" for label in labels)
    answers = [text.removesuffix("<|end_of_text|>") for text in stretches.split("\0") if text]
    return answers, sample.weight


WORDS = st.sampled_from(["", "a", "<image>", "<video>", "What?", " \n"])
VALUES = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | WORDS | st.lists(WORDS, max_size=2)
KEYS = st.sampled_from(["weight", "source", "tools", "video", "rejected", "label", "query", "response", "loss", "name"])
TURNS = st.lists(
    st.builds(
        lambda role, text, more: {**more, "role": role, "content": text},
        st.sampled_from(["user", "assistant", "system"]),
        WORDS,
        st.dictionaries(KEYS, VALUES, max_size=1),
    ),
    max_size=5,
)
FAIR = st.integers(1, 2).map(
    lambda exchanges: [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A."}] * exchanges
)
ROWS = st.builds(
    lambda fields, more: {**fields, **more},
    st.fixed_dictionaries(
        {"conversation": FAIR | TURNS | VALUES},
        optional={
            "id": VALUES,
            "images": st.lists(st.sampled_from(["a.jpg", "b.jpg", "away.jpg"]), max_size=2) | VALUES,
        },
    ),
    st.dictionaries(KEYS, VALUES, max_size=2),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=st.lists(ROWS | VALUES, min_size=1, max_size=12))
def test_every_row_is_kept_repaired_or_dropped_with_a_reason(
    rows: list[Any],
    tmp_path_factory: pytest.TempPathFactory,
    make_jpeg: MakeJpeg,
    run_on: RunOn,
    ledger_of: RowsOf,
    data_of: RowsOf,
) -> None:
    folder = RawFolder(tmp_path_factory.mktemp("any") / "raw")
    folder.image("a.jpg", make_jpeg((0, 0, 0)))
    folder.image("b.jpg", make_jpeg((200, 0, 0)))
    run = run_on(folder.write(json.dumps([folder.row("good"), *rows])), store=store_in(tmp_path_factory))
    dataset = prepare(run, "raw")
    kept, entries = data_of(run, dataset), ledger_of(run, dataset)
    dropped = [entry["row"] for entry in entries if entry["action"] == "dropped"]
    assert sorted([row["row"] for row in kept] + dropped) == list(range(len(rows) + 1)), "each row once"
    assert dataset.summary["kept"] == len(kept)
    assert dataset.summary["dropped"] == len(dropped)
    assert all(reasons()[entry["reason"]].action == entry["action"] for entry in entries)
    assert len({row["id"] for row in kept}) == len(kept)
    for row in kept[1:]:
        raw = rows[row["row"] - 1]
        assert all(not there(raw.get(key)) for key in ("tools", "rejected", "loss")), "a key that nobody reads"
        assert row["weight"] == (raw["weight"] if there(raw.get("weight")) else 1.0)
        assert row["learned"].count(True) >= 1


def there(value: Any) -> bool:
    return value not in (None, "", [], {})


def store_in(factory: pytest.TempPathFactory) -> Any:
    return open_store(factory.mktemp("store").as_uri())
