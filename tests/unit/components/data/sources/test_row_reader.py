"""Every form of a row becomes the same row."""

import base64
from typing import Any

import pytest

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import NormalRow, RawTurn
from components.data.sources.rows.row_reader import ROW_FORMS, RowReader

QUESTION, ANSWER = "<image><image>Which shows a cat?", "The second."
ANSWER_TURN = {"role": "assistant", "content": ANSWER}
IMAGES = ["1.jpg", "2.jpg"]
BARE = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Which shows a cat?"}]
INLINE = [
    {"type": "image_url", "image_url": {"url": "1.jpg"}},
    {"type": "image", "image": "2.jpg"},
    {"type": "text", "text": "Which shows a cat?"},
]


def turns(role: str, content: str, user: str = "user", assistant: str = "assistant") -> list[dict[str, Any]]:
    return [{role: user, content: QUESTION}, {role: assistant, content: ANSWER}]


FORMS: dict[str, dict[str, Any]] = {
    "mantis": {"conversation": turns("role", "content"), "images": IMAGES},
    "llava": {"conversations": turns("from", "value", "human", "gpt"), "images": IMAGES},
    "official text": {"conversation": turns("role", "text"), "images": IMAGES},
    "m4": {"conversations": turns("from", "value", "human", "gpt"), "image": IMAGES},
    "messages": {"messages": turns("role", "content"), "images": IMAGES},
    "trl parts": {
        "messages": [
            {"role": "user", "content": BARE},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWER, "image": None, "index": None}]},
        ],
        "images": [{"bytes": None, "path": path} for path in IMAGES],
    },
    "openai parts": {"messages": [{"role": "user", "content": INLINE}, {"role": "assistant", "content": ANSWER}]},
    "qwen parts": {
        "messages": [
            {"role": "user", "content": [{"image": "1.jpg"}, {"image": "2.jpg"}, {"text": "Which shows a cat?"}]},
            {"role": "assistant", "content": [{"text": ANSWER}]},
        ]
    },
    "query": {"query": QUESTION, "response": ANSWER, "images": IMAGES, "history": None},
    "instruction": {"instruction": QUESTION, "input": "", "output": ANSWER, "images": IMAGES},
    "input alone": {"instruction": "", "input": QUESTION, "output": ANSWER, "images": IMAGES},
    "cauldron": {
        "texts": [{"user": "Which shows a cat?", "assistant": ANSWER, "source": "VQAv2"}],
        "images": [{"bytes": None, "path": path} for path in IMAGES],
    },
    "completion": {"prompt": QUESTION, "completion": ANSWER, "images": IMAGES},
    "chat completion": {
        "prompt": [{"role": "user", "content": QUESTION}],
        "completion": [{"role": "assistant", "content": ANSWER}],
        "images": IMAGES,
    },
    "text behind a chat": {"prompt": [{"role": "user", "content": BARE}], "completion": ANSWER, "images": IMAGES},
    "chat behind a text": {"prompt": QUESTION, "completion": [ANSWER_TURN], "images": IMAGES},
}


def read(row: Any, reader: RowReader | None = None) -> NormalRow:
    return (reader or RowReader()).read(row)


def refused(row: Any) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        read(row)
    return caught.value


@pytest.mark.parametrize("name", FORMS)
def test_every_form_becomes_the_same_row(name: str) -> None:
    found = read(FORMS[name])
    assert [(turn.role, turn.content) for turn in found.turns] == [("user", QUESTION), ("assistant", ANSWER)]
    assert [image.path for image in found.images] == IMAGES
    assert found.unused == {}
    note = {"source": "VQAv2"} if name == "cauldron" else {}
    assert [turn.unused for turn in found.turns] == [{}, note]
    assert found.nested == ()


def test_every_row_form_is_tried() -> None:
    assert {read(row).form for row in FORMS.values()} == {form.name for form in ROW_FORMS}


@pytest.mark.parametrize("name", FORMS)
def test_null_under_the_keys_of_every_other_form_hides_nothing(name: str) -> None:
    others = {key: None for form in ROW_FORMS for key in (*form.marks, *form.uses)}
    assert read(others | {"image": None, "images": None, "rejected": None} | FORMS[name]) == read(FORMS[name])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("empty", [None, "", []])
def test_a_text_without_images_may_say_so_in_any_way(name: str, empty: Any) -> None:
    row = {key: value for key, value in FORMS[name].items() if key not in ("image", "images")}
    assert read(row | {"image": empty, "images": empty}).images == read(row).images


def test_keys_that_no_form_reads_are_kept_with_their_values() -> None:
    row = FORMS["mantis"] | {"weight": 0.5, "videos": [], "source": "x"}
    row["conversation"] = [{"role": "user", "content": QUESTION}, {**ANSWER_TURN, "loss": False}]
    found = read(row)
    assert found.unused == {"weight": 0.5, "source": "x"}
    assert [dict(turn.unused) for turn in found.turns] == [{}, {"loss": False}]


def test_a_second_value_of_equal_meaning_is_unused_if_it_says_otherwise() -> None:
    assert read(FORMS["mantis"] | {"image": IMAGES}).unused == {}
    assert read(FORMS["mantis"] | {"image": "3.jpg"}).unused == {"image": "3.jpg"}
    assert read(FORMS["mantis"] | {"conversations": turns("from", "value", "human", "gpt")}).unused != {}
    turn = {"role": "user", "content": QUESTION, "value": None, "from": "human", "text": "Another?"}
    (asked, _) = read({"conversation": [turn, ANSWER_TURN]}).turns
    assert (asked.content, dict(asked.unused)) == (QUESTION, {"text": "Another?"})


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": [{"role": "system", "content": "Be brief."}, *turns("role", "content")]},
        {"conversation": turns("role", "content"), "system": "Be brief."},
        {"query": QUESTION, "response": ANSWER, "system": "Be brief."},
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                *turns("role", "content"),
            ]
        },
    ],
)
def test_a_system_text_is_the_first_turn(row: dict[str, Any]) -> None:
    assert read(row).turns[0] == RawTurn(role="system", content="Be brief.")


def test_history_stands_before_the_question() -> None:
    found = read({"query": "And now?", "response": "B.", "history": [["First?", "A."]]})
    assert [turn.content for turn in found.turns] == ["First?", "A.", "And now?", "B."]


JPEG = b"\xff\xd8 bytes"
ENCODED = base64.b64encode(JPEG).decode()


@pytest.mark.parametrize(
    ("entry", "path", "data"),
    [
        ("a.jpg", "a.jpg", None),
        ("/in/images/a.jpg", "images/a.jpg", None),
        ("file:///in/images/a%20b.jpg", "images/a b.jpg", None),
        (f"data:image/jpeg;base64,{ENCODED}", "#1", JPEG),
        (f"DATA:image/jpeg;charset=utf-8;Base64,{ENCODED}", "#1", JPEG),
        (f"data:image/jpeg;base64,{ENCODED[:5]}\r\n{ENCODED[5:]}\n", "#1", JPEG),
        ("data:,%FF%D8 bytes", "#1", JPEG),
        (JPEG, "#1", JPEG),
        ({"bytes": JPEG, "path": "a.jpg"}, "a.jpg", JPEG),
        ({"bytes": JPEG, "path": None}, "#1", JPEG),
        ({"bytes": ENCODED}, "#1", JPEG),
        ({"bytes": None, "path": "/in/a.jpg"}, "a.jpg", None),
        ({"url": "a.jpg"}, "a.jpg", None),
    ],
)
def test_an_image_is_a_path_bytes_or_both(entry: Any, path: str, data: bytes | None) -> None:
    reader = RowReader(roots={"/in/": ""})
    for row in ({"images": [entry]}, {"image": entry}):
        (image,) = read(row | {"query": "A?", "response": "B."}, reader).images
        assert (image.path, image.data) == (path, data)


@pytest.mark.parametrize(
    ("entry", "unused"),
    [
        ({"bytes": JPEG, "path": "a.jpg", "foo": 1}, {"foo": 1}),
        ({"bytes": JPEG, "path": "a.jpg", "foo": None, "bar": {}, "caption": ""}, {}),
        ({"path": "a.jpg", "caption": "A cat.", "width": 3}, {"caption": "A cat.", "width": 3}),
        ({"path": "a.jpg", "url": "b.jpg"}, {"url": "b.jpg"}),
        ({"path": "a.jpg", "file_name": "a.jpg"}, {}),
        ({"bytes": ENCODED, "data": ENCODED}, {}),
        ({"bytes": ENCODED, "data": "QUJD"}, {"data": "QUJD"}),
        ({"image_url": {"url": "a.jpg", "detail": "low", "min_pixels": 4}}, {"detail": "low", "min_pixels": 4}),
    ],
)
def test_the_keys_of_an_image_that_are_not_read_are_kept_with_their_place(entry: Any, unused: dict[str, Any]) -> None:
    beside = read({"images": ["0.jpg", entry], "query": "A?", "response": "B."})
    expected = [("image 2", unused)] if unused else []
    assert [(each.where, dict(each.unused)) for each in beside.nested] == expected


@pytest.mark.parametrize(
    ("part", "nested"),
    [
        ({"type": "text", "text": "A?", "image": "a.jpg"}, [("turn 1, part 1", {"image": "a.jpg"})]),
        ({"type": "text", "text": "A?", "cache_control": {"a": 1}}, [("turn 1, part 1", {"cache_control": {"a": 1}})]),
        ({"type": "image", "image": "a.jpg", "text": "A?"}, [("turn 1, part 1", {"text": "A?"})]),
        ({"type": "image", "image": "a.jpg", "min_pixels": 9}, [("turn 1, part 1", {"min_pixels": 9})]),
        ({"type": "image", "source": {"data": ENCODED}}, [("turn 1, part 1", {"source": {"data": ENCODED}})]),
        ({"type": "image_url", "image_url": {"url": "a.jpg", "foo": 1}}, [("image 1", {"foo": 1})]),
        ({"type": "image", "path": "a.jpg", "bytes": ENCODED, "url": "b"}, [("image 1", {"url": "b"})]),
        ({"type": "image", "base64": ENCODED, "text": None}, []),
    ],
)
def test_the_keys_of_a_content_part_that_are_not_read_are_kept_with_their_place(
    part: dict[str, Any], nested: list[tuple[str, dict[str, Any]]]
) -> None:
    found = read({"messages": [{"role": "user", "content": [part]}, ANSWER_TURN]})
    assert [(each.where, dict(each.unused)) for each in found.nested] == nested


def test_the_keys_of_a_video_that_are_not_read_are_kept_with_their_place() -> None:
    found = read({"videos": ["0.mp4", {"path": "a.mp4", "bytes": b"x", "fps": 2}], "query": "A?", "response": "B."})
    assert found.videos == ("0.mp4", "a.mp4")
    assert [(each.where, dict(each.unused)) for each in found.nested] == [("video 2", {"bytes": b"x", "fps": 2})]


@pytest.mark.parametrize("empty", [None, "", b"", [], {}])
def test_an_empty_value_of_an_image_hides_no_other(empty: Any) -> None:
    found = read({"images": [{"bytes": empty, "path": empty, "file_name": "a.jpg"}], "query": "A?", "response": "B."})
    assert (found.images[0].path, found.images[0].data) == ("a.jpg", None)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("https://example.org/a.jpg", "image-url"),
        ({"url": "http://example.org/a.jpg"}, "image-url"),
        ("s3://bucket/a.jpg", "image-url"),
        ("data:image/jpeg;base64,***", "images-malformed"),
        (3, "images-malformed"),
        ({"path": None, "bytes": None}, "images-malformed"),
        ({"bytes": "no base64!"}, "images-malformed"),
        ("", "images-malformed"),
        (ENCODED * 200, "images-malformed"),
        ("\x1b[31ma.jpg", "images-malformed"),
        ("a\nb.jpg", "images-malformed"),
        ({"bytes": JPEG, "path": "a" * 1025}, "images-malformed"),
        ({"bytes": JPEG, "path": "a\u2028.jpg"}, "images-malformed"),
    ],
)
def test_what_is_no_image_is_refused(entry: Any, reason: str) -> None:
    refusal = refused({"images": ["0.jpg", entry], "query": "A?", "response": "B."})
    assert refusal.reason == reason
    assert refusal.threshold


@pytest.mark.parametrize(
    ("row", "reason", "word"),
    [
        ({"prompt": "A?", "chosen": "B.", "rejected": "C."}, "preference-pair", "rejected"),
        ({"messages": turns("role", "content"), "rejected_response": "C."}, "preference-pair", "rejected_response"),
        ({"id": "a", "images": IMAGES, "prompt": "A?", "labels": {"quality": 1.0}}, "classification-row", "label"),
        ({"image": "a.jpg", "label": 0}, "classification-row", "label"),
        ({"question": "A?", "answer": "B."}, "conversation-missing", "data.columns"),
        ({}, "conversation-missing", "messages"),
        ({"query": "A?"}, "answer-missing", "answer"),
        ({"query": "A?", "response": ["B.", "C."]}, "turn-malformed", "one text"),
        ({"instruction": ["A?", "B?"], "output": "C."}, "turn-malformed", "one text"),
        ({"instruction": "A?", "input": ["B", "C"], "output": "D."}, "turn-malformed", "one text"),
        ({"query": "A?", "response": "B.", "history": [["C?", ["D.", "E."]]]}, "turn-malformed", "one text"),
        ({"texts": [{"user": "A?", "assistant": ["B.", "C."]}]}, "turn-malformed", "one text"),
        ({"prompt": "A?", "completion": ["B.", "C."]}, "turn-malformed", "one text"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]}, "part-unknown", "text"),
        (FORMS["openai parts"] | {"images": IMAGES}, "images-malformed", "all in `images`"),
        ({"conversation": [{"role": "tool", "content": "A"}]}, "role-unknown", "user"),
        ({"conversation": turns("role", "content"), "system": {"a": 1}}, "turn-malformed", "text"),
        (
            {"conversation": [{"role": "system", "content": "A"}, *turns("role", "content")], "system": "B"},
            "role-order",
            "one system text",
        ),
    ],
)
def test_a_row_of_another_kind_is_refused_with_a_remedy(row: dict[str, Any], reason: str, word: str) -> None:
    refusal = refused(row)
    assert refusal.reason == reason
    assert word in refusal.threshold


@pytest.mark.parametrize(("key", "turn"), [("user", "turn 3"), ("assistant", "turn 4")])
def test_the_refusal_of_a_text_names_its_turn(key: str, turn: str) -> None:
    pairs = [{"user": "A?", "assistant": "B."}, {"user": "C?", "assistant": "D.", key: ["E", "F"]}]
    assert refused({"texts": pairs}).value.startswith(f"{turn}: ")


def test_the_refusal_of_a_video_speaks_of_videos() -> None:
    refusal = refused({"videos": ["a.mp4", "https://example.org/b.mp4"], "query": "A?", "response": "B."})
    assert (refusal.reason, refusal.value) == ("image-url", "video 2: https://example.org/b.mp4")
    assert "videos" in refusal.threshold


def test_columns_give_the_keys_of_rows_and_turns() -> None:
    columns = {"id": "uid", "images": "pictures", "conversation": "dialogue", "role": "speaker", "content": "says"}
    reader = RowReader(columns=columns)
    row = {"uid": 7, "pictures": IMAGES, "dialogue": turns("speaker", "says")}
    assert read(row, reader) == read(FORMS["mantis"])
    assert reader.id_of(row) == 7
    with pytest.raises(RowRejected) as caught:
        read(row | {"images": ["3.jpg"]}, reader)
    assert caught.value.reason == "column-twice"


def test_a_named_form_is_the_only_one_that_is_tried() -> None:
    (query,) = [form for form in ROW_FORMS if form.name == "query"]
    both = FORMS["mantis"] | {"query": "A?", "response": "B."}
    assert read(both).form == "conversation"
    assert [turn.content for turn in read(both, RowReader(form=query)).turns] == ["A?", "B."]
    with pytest.raises(RowRejected) as caught:
        read(FORMS["mantis"], RowReader(form=query))
    assert caught.value.threshold.startswith("one of query;")


@pytest.mark.parametrize(
    ("row", "found"),
    [({"id": "a"}, "a"), ({"id": 0}, 0), ({"id": None, "sample_id": 5}, 5), ({}, None), ([], None)],
)
def test_the_id_is_the_first_one_with_a_value(row: Any, found: Any) -> None:
    assert RowReader().id_of(row) == found
