from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.prepare.conversation_rules import Checked, ConversationRules
from components.data.sources.rejection import RowRejected
from mantis.models.conversation import IMAGE_MARK


def rules_of(max_images: int | None = None) -> ConversationRules:
    return ConversationRules(max_images=max_images, max_turn_characters=1000)


def check(raw: Any, *, max_images: int | None = None, row: int = 0) -> Checked:
    return rules_of(max_images).check(row, raw)


def turns(*contents: str, roles: tuple[str, str] = ("user", "assistant")) -> list[dict[str, str]]:
    return [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


def refused(raw: Any, **options: Any) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        check(raw, **options)
    return caught.value


def test_both_names_of_everything_are_read_alike() -> None:
    official = {
        "id": "a",
        "images": ["1.jpg"],
        "conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "That."}],
    }
    published = {"id": "a", "images": ["1.jpg"], "conversation": turns("<image>What?", "That.")}
    assert check(official) == check(published)


def test_missing_marks_go_to_the_front_of_the_first_turn() -> None:
    raw = {"id": "a", "images": ["1", "2", "3"], "conversation": turns("What is <image>?", "A.", "And?", "B.")}
    checked = check(raw)
    assert checked.turns[0].content == "<image><image>What is <image>?"
    assert [turn.content for turn in checked.turns[1:]] == ["A.", "And?", "B."]
    (repair,) = checked.repairs
    assert (repair.reason, repair.value, repair.threshold) == ("marks-missing", "1", "3 images")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (["no", "mapping"], "row-malformed"),
        ({"id": "a"}, "conversation-missing"),
        ({"id": "a", "conversation": []}, "conversation-missing"),
        ({"id": "a", "conversation": "Hello"}, "conversation-missing"),
        ({"id": "a", "conversation": ["Hello", "Hi"]}, "turn-malformed"),
        ({"id": "a", "conversation": [{"role": "user", "content": 3}]}, "turn-malformed"),
        ({"id": "a", "conversation": turns("A?", "B.", roles=("tool", "assistant"))}, "role-unknown"),
        ({"id": "a", "conversation": turns("A.", "B?", roles=("assistant", "user"))}, "answer-missing"),
        ({"id": "a", "conversation": turns("A.", roles=("assistant", "user"))}, "answer-missing"),
        ({"id": "a", "conversation": turns("A.", "B.", "C?", roles=("assistant", "assistant"))}, "role-order"),
        ({"id": "a", "conversation": turns("A?" * 501, "B.")}, "text-too-long"),
        ({"id": "a", "conversation": turns("A?", "B?", roles=("user", "user"))}, "role-order"),
        ({"id": "a", "conversation": turns("Only a question?")}, "answer-missing"),
        ({"id": "a", "conversation": turns("A?", "B.", "C?")}, "answer-missing"),
        ({"id": "a", "conversation": turns("A?", " \n")}, "answer-empty"),
        ({"id": "a", "images": ["1"], "conversation": turns("A?", "<image>")}, "answer-empty"),
        ({"id": "a", "images": 7, "conversation": turns("A?", "B.")}, "images-malformed"),
        ({"id": "a", "images": [1], "conversation": turns("A?", "B.")}, "images-malformed"),
        ({"id": "a", "images": ["1"], "conversation": turns("<image><image>?", "B.")}, "marks-too-many"),
        ({"id": "a", "conversation": turns("A \udcff?", "B.")}, "text-not-utf8"),
        ({"id": "\ud800", "conversation": turns("A?", "B.")}, "text-not-utf8"),
        ({"id": "a", "images": ["\udcff.jpg"], "conversation": turns("A?", "B.")}, "text-not-utf8"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_reason(raw: Any, reason: str) -> None:
    assert refused(raw).reason == reason


def test_too_many_images_are_refused_with_the_number_and_the_limit() -> None:
    raw = {"id": "a", "images": ["1", "2", "3"], "conversation": turns("A?", "B.")}
    refusal = refused(raw, max_images=2)
    assert (refusal.reason, refusal.value, refusal.threshold) == ("images-too-many", "3", "2")


def test_a_first_turn_that_is_not_the_users_is_left_out() -> None:
    messages = turns("<image>Hello.", "What is it?", "A dog.", roles=("assistant", "user"))
    checked = check({"id": "a", "images": ["1.jpg"], "conversation": messages})
    assert [turn.content for turn in checked.turns] == ["<image>What is it?", "A dog."]
    assert [repair.reason for repair in checked.repairs] == ["first-turn-skipped", "marks-missing"]


def test_images_are_paths_or_bytes_or_both_or_one() -> None:
    row = {"id": "a", "conversation": turns("A?", "B.")}
    images = [
        "1.jpg",
        {"bytes": None, "path": "2.jpg"},
        {"bytes": b"x", "path": "3.jpg"},
        {"bytes": b"y", "path": None},
    ]
    found = check(row | {"images": images}).images
    assert [(image.path, image.data) for image in found] == [
        ("1.jpg", None),
        ("2.jpg", None),
        ("3.jpg", b"x"),
        ("#4", b"y"),
    ]
    assert [image.path for image in check(row | {"image": "only.jpg"}).images] == ["only.jpg"]
    assert refused(row | {"images": [{"bytes": None, "path": None}]}).reason == "images-malformed"


def test_the_second_row_of_an_id_is_refused() -> None:
    rules = rules_of()
    raw = {"id": "a", "conversation": turns("A?", "B.")}
    rules.check(0, raw)
    with pytest.raises(RowRejected) as caught:
        rules.check(1, raw)
    assert caught.value.reason == "id-duplicate"


def test_a_row_without_id_is_named_by_its_place() -> None:
    rules = rules_of()
    raw = {"conversation": turns("A?", "B.")}
    assert [rules.check(row, raw).id for row in (0, 7)] == ["row-0", "row-7"]


ANYTHING = st.none() | st.integers() | st.text(max_size=6) | st.lists(st.text(max_size=3), max_size=2)
CONTENT = st.lists(st.sampled_from([IMAGE_MARK, "a", " ", "\n", "?"]), max_size=6).map("".join)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "human", "gpt", "system"]), "content": CONTENT}
)
FAIR = st.integers(1, 3).flatmap(
    lambda exchanges: st.lists(CONTENT, min_size=2 * exchanges, max_size=2 * exchanges).map(lambda each: turns(*each))
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": ANYTHING,
        "images": st.lists(st.sampled_from(["1.jpg", "2.jpg", "3.jpg"]), max_size=4) | ANYTHING,
        "conversation": FAIR | st.lists(TURN | ANYTHING, max_size=4) | ANYTHING,
    },
)


@given(raw=ROW | ANYTHING)
def test_any_row_is_refused_or_keeps_its_images_its_text_and_an_answer(raw: Any) -> None:
    try:
        checked = check(raw)
    except RowRejected:
        return
    said = "".join(turn.content for turn in checked.turns)
    assert said.count(IMAGE_MARK) == len(checked.images)
    named = raw.get("images") or []
    assert [image.path for image in checked.images] == (named if isinstance(named, list) else [named])
    assert [turn.role for turn in checked.turns] == ["user", "assistant"] * (len(checked.turns) // 2)
    assert all(turn.content.replace(IMAGE_MARK, "").strip() for turn in checked.turns[1::2])
    system = bool(checked.system)
    skipped = len(raw["conversation"]) - len(checked.turns) - system
    assert not system or raw["conversation"][0] == {"role": "system", "content": checked.system}
    before = "".join(turn["content"] for turn in raw["conversation"][skipped + system :])
    added = len(checked.images) - before.count(IMAGE_MARK)
    assert said == IMAGE_MARK * added + before
    assert len(checked.repairs) == (added > 0) + skipped
