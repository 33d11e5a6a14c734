"""What the model will see of rows of a source, kept or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.data.prepare.reasons import reasons
from components.data.showing.raw_rows import LONGEST_TEXT
from components.data.showing.selection import Selection
from components.data.showing.source_view import show_source
from components.data.sources.find import find_sources, open_file
from components.data.step import assemble, prepare
from mantis.dataset.mixture_reader import MixtureReader
from mantis.errors import ConfigError, InputError
from mantis.models.registry import family
from mantis.showing.shown_data import ShownData, ShownRow
from tests.fixtures.data import TURNS, RawFolder, RunOn, encoded


def shown(run_on: RunOn, folder: Path, *rows: int, read: int = 100, **changes: str) -> ShownData:
    run = run_on(folder, {key.replace("__", "."): value for key, value in changes.items()})
    source = next(iter(find_sources(str(folder)).values()))
    return show_source(run.store, run.recipe, source, Selection(read=read, rows=rows))


def only(data: ShownData) -> ShownRow:
    [row] = data.rows
    return row


def texts(row: ShownRow, *, learned: bool) -> str:
    assert row.tokens is not None
    return "".join(piece.text for piece in row.tokens.pieces if piece.learned is learned)


def test_a_kept_row_shows_turns_images_and_what_is_learned(raw_folder: RawFolder, run_on: RunOn) -> None:
    raw_folder.image("a.jpg")
    row = only(shown(run_on, raw_folder.write([raw_folder.row("one", "a.jpg")]), 0))
    assert (row.row, row.id, row.dropped, row.findings) == (0, "one", False, ())
    assert [(turn.role, turn.content, turn.learned) for turn in row.turns] == [
        ("user", "<image>What is this? one", False),
        ("assistant", "A picture.", True),
    ]
    assert [(image.path, image.width, image.height, image.tokens) for image in row.images] == [("a.jpg", 40, 30, 4)]
    assert texts(row, learned=True) == "A picture.<|end_of_text|>"
    assert texts(row, learned=False) == "image 1image 1: 4 tokensWhat is this? one\n"


def test_the_tokens_shown_are_those_that_training_reads(raw_folder: RawFolder, run_on: RunOn) -> None:
    """One subset, whose tokenizer is trained on the same rows here and in the mixture."""
    raw_folder.image("a.jpg")
    rows = [raw_folder.row(f"r{number}", *["a.jpg"] * (number % 3)) for number in range(12)]
    follow_up = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "Yes"}]
    rows[3]["conversation"] = [*rows[3]["conversation"], {**TURNS[0], "content": "Long " * 60}, TURNS[1]]  # is cut
    rows[4]["conversation"] = [rows[4]["conversation"][0], {**TURNS[1], "loss": False}, *follow_up]
    rows[5]["conversation"] += follow_up
    folder = raw_folder.write(rows)
    data = shown(run_on, folder, *range(12), data__context_length="60", data__learn="last")
    run = run_on(folder, {"data.context_length": "60", "data.learn": "last"})
    reader = MixtureReader(run.store, assemble(run, [prepare(run, "raw")]))
    processor = family("llava-clip").processor(reader.tokenizer(), run.recipe.model)
    expected = {}
    for sample in reader.take(range(len(reader))):
        expected[sample.conversation.id] = processor.encode(sample.conversation)
    kept = {row.id: row for row in data.rows if not row.dropped}
    assert kept.keys() == expected.keys()
    for name, row in kept.items():
        assert row.tokens is not None
        assert [token for piece in row.tokens.pieces for token in piece.ids] == expected[name].input_ids
        learned = [piece.learned for piece in row.tokens.pieces for _ in piece.ids]
        assert learned == [label != -100 for label in expected[name].labels]
        assert row.tokens.targets == sum(learned)


def refused(raw_folder: RawFolder) -> list[dict[str, Any]]:
    """Rows that are refused by the reader, the rules, the images, and the mixture."""
    raw_folder.image("a.jpg")
    raw_folder.image("broken.jpg", encoded()[:200])
    return [
        raw_folder.row("key", "a.jpg", score=1),
        raw_folder.row("away", "a.jpg", "away.jpg"),
        raw_folder.row("broken", "broken.jpg"),
        {"id": "pair", "prompt": "p", "chosen": "<b>", "rejected": "b"},
        raw_folder.row("long", conversation=[{**TURNS[0], "content": "word " * 3000}, TURNS[1]]),
        raw_folder.row("order", conversation=TURNS[:1]),
        raw_folder.row("kept", "a.jpg"),
        raw_folder.row("again", "a.jpg", conversation=raw_folder.row("kept", "a.jpg")["conversation"]),
    ]


EXPECTED = [
    "key-unknown",
    "image-missing",
    "image-broken",
    "preference-pair",
    "too-long",
    "answer-missing",
    "",
    "duplicate",
]


def test_a_refused_row_shows_its_reason_its_remedy_and_its_content(raw_folder: RawFolder, run_on: RunOn) -> None:
    data = shown(run_on, raw_folder.write(refused(raw_folder)), *range(8))
    for row, reason in zip(data.rows, EXPECTED, strict=True):
        assert row.dropped == bool(reason)
        assert [finding.reason for finding in row.findings if finding.action == "dropped"] == (
            [reason] if reason else []
        )
        if reason:
            assert row.tokens is None
            assert row.findings[0].remedy == reasons()[reason].remedy
            assert row.findings[0].meaning == reasons()[reason].meaning
            assert not any(turn.learned for turn in row.turns)
    key, away, broken, pair, *_ = data.rows
    assert [turn.content for turn in key.turns] == ["<image>What is this? key", "A picture."]
    assert key.images[0].thumbnail.startswith("data:image/jpeg")
    assert [image.problem for image in away.images] == ["", "image-missing: away.jpg"]
    assert broken.images[0].problem.startswith("image-broken: broken.jpg: ")
    assert '"chosen": "<b>"' in pair.raw
    assert pair.turns == ()


def test_drops_are_counted_with_examples_and_drawn(raw_folder: RawFolder, run_on: RunOn) -> None:
    data = shown(run_on, raw_folder.write(refused(raw_folder)))
    assert (data.facts["rows read"], data.facts["samples"], data.facts["dropped"]) == (8, 1, 7)
    dropped = {each.reason: [row.row for row in each.first] for each in data.reasons if each.action == "dropped"}
    assert dropped == {reason: [row] for row, reason in enumerate(EXPECTED) if reason}
    plots = {plot.title: [(bar.label, bar.count) for bar in plot.bars] for plot in data.plots}
    assert sorted(plots["Dropped rows by reason"]) == sorted((reason, 1) for reason in EXPECTED if reason)
    assert plots["Images per sample"] == [("1", 1)]
    assert len(data.rows) == 5  # without numbers, the first rows are shown


def test_a_source_without_a_usable_row_is_shown(raw_folder: RawFolder, run_on: RunOn) -> None:
    data = shown(run_on, raw_folder.write([{"id": "x", "text": "no turns"}]))
    assert only(data).dropped
    assert data.facts["samples"] == 0


def test_a_far_row_is_shown_without_reading_the_rows_before_it(raw_folder: RawFolder, run_on: RunOn) -> None:
    folder = raw_folder.write([raw_folder.row(f"r{number}") for number in range(50)])
    data = shown(run_on, folder, 40, read=3)
    assert only(data).id == "r40"
    assert data.facts["rows read"] == 4


def test_rows_behind_the_last_wanted_one_are_not_read(tmp_path: Path, run_on: RunOn) -> None:
    raw = RawFolder(tmp_path / "lines")
    lines = [
        json.dumps({"id": f"r{number}", "conversation": [{**TURNS[0], "content": f"Hi {number}"}, TURNS[1]]})
        for number in range(3)
    ]
    raw.write("\n".join([*lines, "{broken"]), "train.jsonl")
    run = run_on(raw.folder)
    data = show_source(run.store, run.recipe, open_file(raw.folder / "train.jsonl"), Selection(read=2, shown=2))
    assert [row.id for row in data.rows] == ["r0", "r1"]
    with pytest.raises(InputError):
        show_source(run.store, run.recipe, open_file(raw.folder / "train.jsonl"), Selection(read=9))


def test_a_row_that_is_not_there_is_refused(raw_folder: RawFolder, run_on: RunOn) -> None:
    folder = raw_folder.write([raw_folder.row("one")])
    with pytest.raises(ConfigError, match="--row 1: the source has no such row"):
        shown(run_on, folder, 1)
    with pytest.raises(InputError, match="has no row"):
        shown(run_on, raw_folder.write([]))


def test_long_content_of_a_refused_row_is_cut(raw_folder: RawFolder, run_on: RunOn) -> None:
    text = "x" * 100_000
    rows = [raw_folder.row("long", conversation=[{**TURNS[0], "content": text}, TURNS[1]]), {"id": "raw", "text": text}]
    data = shown(run_on, raw_folder.write(rows), 0, 1)
    turn, raw = data.rows[0].turns[0].content, data.rows[1].raw
    assert turn == f"{text[:LONGEST_TEXT]} … and {len(text) - LONGEST_TEXT:,} more characters"
    assert len(raw) < LONGEST_TEXT + 40


def test_text_that_utf8_cannot_hold_is_escaped(raw_folder: RawFolder, run_on: RunOn) -> None:
    folder = raw_folder.write([raw_folder.row("half", conversation=[{**TURNS[0], "content": "\ud83d"}, TURNS[1]])])
    row = only(shown(run_on, folder, 0))
    assert [finding.reason for finding in row.findings] == ["text-not-utf8"]
    assert row.turns[0].content == "\\ud83d"


def test_one_file_of_a_folder_is_opened_with_its_images(raw_folder: RawFolder, run_on: RunOn) -> None:
    raw_folder.image("a.jpg")
    raw_folder.write([raw_folder.row("other")], "other.json")
    path = raw_folder.write([raw_folder.row("one", "a.jpg")], "mine.json") / "mine.json"
    run = run_on(raw_folder.folder)
    data = show_source(run.store, run.recipe, open_file(path), Selection())
    assert [(row.id, row.subset, len(row.images)) for row in data.rows] == [("one", "mine", 1)]
    (raw_folder.folder / "notes.txt").write_text("no rows")
    with pytest.raises(ConfigError, match=r"notes\.txt has no known form of rows"):
        open_file(raw_folder.folder / "notes.txt")


def test_a_refused_row_names_its_videos(raw_folder: RawFolder, run_on: RunOn) -> None:
    row = only(shown(run_on, raw_folder.write([raw_folder.row("film", videos=["away.mp4"])]), 0))
    assert [finding.reason for finding in row.findings] == ["image-missing"]
    assert [(image.path, image.problem) for image in row.images] == [
        ("away.mp4", "a video, whose frames are not shown")
    ]
