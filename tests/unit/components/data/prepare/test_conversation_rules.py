from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.prepare.conversation_rules import Checked, ConversationRules, VideoRef, with_frames
from components.data.prepare.reasons import reasons
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import ImageRef
from components.data.sources.rows.row_reader import RowReader
from mantis.models.conversation import IMAGE_MARK

READER = RowReader()


def check(raw: Any, *, max_images: int | None = None, ignore: frozenset[str] = frozenset()) -> Checked:
    rules = ConversationRules(max_images=max_images, max_turn_characters=1000, ignore=ignore)
    return rules.check("a", READER.read(raw))


def turns(*contents: str, roles: tuple[str, str] = ("user", "assistant")) -> list[dict[str, Any]]:
    return [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


def refused(raw: Any, **options: Any) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        check(raw, **options)
    return caught.value


def reasons_of(checked: Checked) -> list[str]:
    return [repair.reason for repair in checked.repairs]


def said(checked: Checked) -> list[str]:
    return [turn.content for turn in checked.turns]


def test_a_text_may_have_as_many_characters_as_the_limit_says() -> None:
    for question, answer in (("A" * 1000, "B."), ("A?", "B" * 1000)):
        assert said(check({"conversation": turns(question, answer)})) == [question, answer]
        for longer in (turns(question + "A", answer), turns(question, answer + "B")):
            reason = "text-too-long" if 1001 in map(len, (turn["content"] for turn in longer)) else ""
            assert (refused({"conversation": longer}).reason if reason else "") == reason


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
    assert said(checked) == ["<image><image>What is <image>?", "A.", "And?", "B."]
    (repair,) = checked.repairs
    assert (repair.reason, repair.value, repair.threshold) == ("marks-missing", "1", "3 for <image>")


def test_marks_behind_the_last_image_are_removed() -> None:
    """As the processors of the official code do it (mantis/models/mllava/processing_llava.py)."""
    raw = {"images": ["1", "2"], "conversation": turns("<image> or <image>?", "<image> A.", "And <image>?", "B.")}
    checked = check(raw)
    assert said(checked) == ["<image> or <image>?", " A.", "And ?", "B."]
    assert reasons_of(checked) == ["marks-extra"]
    assert len(checked.media) == 2


def test_a_last_turn_of_the_user_is_left_out_with_its_images() -> None:
    raw = {"images": ["1", "2", "3"], "conversation": turns("<image>A?", "B.", "<image> and <image>?")}
    checked = check(raw)
    assert said(checked) == ["<image>A?", "B."]
    assert checked.media == (ImageRef(path="1"),)
    assert reasons_of(checked) == ["last-turn-skipped"]


def test_missing_marks_are_counted_before_the_last_turn_is_left_out() -> None:
    raw = {"images": ["1", "2", "3"], "conversation": turns("A?", "B.", "<image>C?")}
    checked = check(raw)
    assert said(checked) == ["<image><image>A?", "B."]
    assert checked.media == (ImageRef(path="1"), ImageRef(path="2"))
    assert reasons_of(checked) == ["marks-missing", "last-turn-skipped"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (["no", "mapping"], "row-malformed"),
        ({"id": "a"}, "conversation-missing"),
        ({"id": "a", "conversation": ["Hello", "Hi"]}, "turn-malformed"),
        ({"id": "a", "conversation": [{"role": "user", "content": 3}]}, "turn-malformed"),
        ({"id": "a", "conversation": turns("A?", "B.", roles=("bot", "assistant"))}, "role-unknown"),
        ({"id": "a", "conversation": turns("A.", roles=("assistant", "user"))}, "answer-missing"),
        ({"id": "a", "conversation": turns("A.", "B?", roles=("assistant", "user"))}, "answer-missing"),
        ({"id": "a", "conversation": turns("A.", "B.", "C?", roles=("assistant", "assistant"))}, "role-order"),
        ({"id": "a", "conversation": turns("A?", "B?", roles=("user", "user"))}, "role-order"),
        ({"id": "a", "conversation": turns("Only a question?")}, "answer-missing"),
        ({"id": "a", "conversation": turns("A?" * 501, "B.")}, "text-too-long"),
        ({"id": "a", "conversation": turns("A?", " \n")}, "answer-empty"),
        ({"id": "a", "images": ["1"], "conversation": turns("A?", "<image>")}, "answer-empty"),
        ({"id": "a", "images": [1], "conversation": turns("A?", "B.")}, "images-malformed"),
        ({"id": "a", "conversation": turns("<image>?", "B.")}, "marks-without-images"),
        ({"id": "a", "conversation": turns("A \udcff?", "B.")}, "text-not-utf8"),
        ({"id": "a", "images": ["\udcff.jpg"], "conversation": turns("A?", "B.")}, "text-not-utf8"),
        ({"id": "a", "rejected": "C.", "conversation": turns("A?", "B.")}, "preference-pair"),
        ({"id": "a", "tools": "[]", "conversation": turns("A?", "B.")}, "key-unknown"),
        ({"id": "a", "audio": "a.wav", "conversation": turns("A?", "B.")}, "media-unsupported"),
        ({"id": "a", "video": 3, "conversation": turns("A?", "B.")}, "video-malformed"),
        ({"id": "a", "weight": -1, "conversation": turns("A?", "B.")}, "weight-malformed"),
        ({"id": "a", "conversation": [turns("A?")[0], {**turns("A?", "B.")[1], "loss": "no"}]}, "loss-malformed"),
        ({"id": "a", "conversation": [turns("A?")[0], {**turns("A?", "B.")[1], "loss": False}]}, "nothing-to-learn"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_with_its_reason(raw: Any, reason: str) -> None:
    assert refused(raw).reason == reason
    assert reasons()[reason].remedy


def test_too_many_images_are_refused_with_the_number_and_the_limit() -> None:
    raw = {"id": "a", "images": ["1", "2", "3"], "conversation": turns("A?", "B.")}
    refusal = refused(raw, max_images=2)
    assert (refusal.reason, refusal.value, refusal.threshold) == ("images-too-many", "3", "2")


def test_a_first_turn_that_is_not_the_users_is_left_out() -> None:
    messages = turns("<image>Hello.", "What is it?", "A dog.", roles=("assistant", "user"))
    checked = check({"id": "a", "images": ["1.jpg"], "conversation": messages})
    assert said(checked) == ["<image>What is it?", "A dog."]
    assert reasons_of(checked) == ["first-turn-skipped", "marks-missing"]


def test_flags_and_weight_reach_the_turns() -> None:
    messages = turns("A?", "B.", "C?", "D.")
    messages[1]["loss"] = False
    checked = check({"weight": 0.5, "conversation": messages})
    assert [turn.learned for turn in checked.turns] == [True, False, True, True]
    assert checked.weight == 0.5


def test_keys_that_the_recipe_ignores_change_nothing() -> None:
    plain = {"conversation": turns("A?", "B.")}
    noisy = {"score": 3, "conversation": [{**turn, "emotion": "calm"} for turn in turns("A?", "B.")]}
    assert refused(noisy).value == "row: 'score'"
    assert refused(noisy, ignore=frozenset({"score"})).value == "turn 1: 'emotion'"
    assert check(noisy, ignore=frozenset({"score", "emotion"})) == check(plain)


def test_videos_and_images_stand_in_the_order_of_their_marks() -> None:
    messages = turns("<image> <video> <image>", "A.", "<video>?", "B.")
    checked = check({"images": ["1", "2"], "videos": ["v", "w"], "conversation": messages})
    media = (ImageRef(path="1"), VideoRef(path="v"), ImageRef(path="2"), VideoRef(path="w"))
    assert (checked.media, checked.repairs) == (media, ())
    framed = with_frames(checked.turns, [3, 1])
    assert [turn.content for turn in framed] == ["<image> <image><image><image> <image>", "A.", "<image>?", "B."]


def test_a_video_without_a_mark_stands_before_the_first_turn() -> None:
    checked = check({"video": "v.mp4", "conversation": turns("What happens?", "A.")})
    assert said(checked) == ["<video>What happens?", "A."]
    assert reasons_of(checked) == ["marks-missing"]


def test_the_word_of_a_mark_is_text_in_a_row_without_videos() -> None:
    checked = check(
        {"images": ["1"], "conversation": turns("<image> What does <video> mean in HTML?", "A <video> tag.")}
    )
    assert said(checked) == ["<image> What does <video> mean in HTML?", "A <video> tag."]
    assert with_frames(checked.turns, []) == checked.turns


LLAVA = [{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "A"}]
PUBLISHED: dict[str, dict[str, Any]] = {
    "TIGER-Lab/Mantis-Instruct": {
        "images": [{"bytes": None, "path": "a"}], "conversation": turns("Q", "A"), "source": "x",
    },
    "HuggingFaceM4/the_cauldron": {"images": ["a"], "texts": [{"user": "Q", "assistant": "A", "source": "AI2D"}]},
    "lmms-lab/M4-Instruct-Data": {
        "sample_id": "1", "image": ["a"], "conversations": LLAVA, "choice_list": ["x"],
        "metadata": {"dataset": "d", "split": "train", "num_sample": 3},
    },
    "liuhaotian/LLaVA-Instruct-150K": {"id": "1", "image": "a", "model": "", "conversations": LLAVA},
    "lmms-lab/LLaVA-NeXT-Data": {"id": "1", "image": "a", "conversations": LLAVA, "data_source": "x"},
    "lmms-lab/LLaVA-Video-178K": {"id": "1", "video": "v.mp4", "conversations": LLAVA, "data_source": "x"},
    "OpenAI fine-tuning": {"messages": [*turns("Q", "A"), turns("Q")[0], {**turns("Q", "B")[1], "weight": 1}]},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_published_sets_have_no_unknown_key(name: str) -> None:
    checked = check(PUBLISHED[name])
    assert said(checked)[-2].endswith("Q")
    assert [turn.learned for turn in checked.turns[1::2]] == [True] * (len(checked.turns) // 2)


ANYTHING = st.none() | st.integers() | st.text(max_size=6) | st.lists(st.text(max_size=3), max_size=2)
CONTENT = st.lists(st.sampled_from([IMAGE_MARK, "<video>", "a", " ", "\n", "?"]), max_size=6).map("".join)
EXTRA = st.sampled_from(["loss", "train", "weight", "name", "odd"])
TURN = st.builds(
    lambda role, content, extra: {**extra, "role": role, "content": content},
    st.sampled_from(["user", "assistant", "human", "gpt", "system"]),
    CONTENT,
    st.dictionaries(EXTRA, st.booleans() | ANYTHING, max_size=1),
)
FAIR = st.integers(1, 3).flatmap(
    lambda exchanges: st.lists(CONTENT, min_size=2 * exchanges, max_size=2 * exchanges + 1).map(
        lambda each: turns(*each)
    )
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "id": ANYTHING,
        "images": st.lists(st.sampled_from(["1.jpg", "2.jpg", "3.jpg"]), max_size=4) | ANYTHING,
        "videos": st.lists(st.sampled_from(["1.mp4", "2.mp4"]), max_size=2) | ANYTHING,
        "conversation": FAIR | st.lists(TURN | ANYTHING, max_size=4) | ANYTHING,
        "weight": st.floats() | ANYTHING,
        "source": ANYTHING,
        "odd": ANYTHING,
        "rejected": ANYTHING,
    },
)
NOTHING: tuple[Any, ...] = (None, "", [], {})


@given(raw=ROW | ANYTHING)
def test_any_row_is_refused_or_keeps_its_images_its_text_and_an_answer(raw: Any) -> None:
    try:
        checked = check(raw)
    except RowRejected as refusal:
        known = refusal.reason
        assert reasons()[known].action == "dropped"
        return
    assert all(raw.get(key) in NOTHING for key in ("odd", "rejected"))
    text = "".join(turn.content for turn in checked.turns)
    images = [medium for medium in checked.media if isinstance(medium, ImageRef)]
    videos = [medium for medium in checked.media if isinstance(medium, VideoRef)]
    assert text.count(IMAGE_MARK) == len(images)
    if videos:
        assert text.count("<video>") == len(videos)
    given_turns = raw["conversation"]
    assert [turn.role for turn in checked.turns] == ["user", "assistant"] * (len(checked.turns) // 2)
    assert all(turn.content.replace(IMAGE_MARK, "").strip() for turn in checked.turns[1::2])
    assert any(turn.learned for turn in checked.turns[1::2])
    paths = raw.get("images") or []
    named = [paths] if isinstance(paths, str) else paths
    assert [image.path for image in images] == named[: len(images)]
    skipped = {"first-turn-skipped", "last-turn-skipped"} & set(reasons_of(checked))
    system = bool(given_turns[0]["role"] == "system" and given_turns[0]["content"])
    assert len(checked.turns) + len(skipped) == len(given_turns) - (given_turns[0]["role"] == "system")
    assert bool(checked.system) == system
    assert checked.weight == (raw["weight"] if raw.get("weight") not in NOTHING else 1.0)
    if "last-turn-skipped" not in skipped:
        assert len(images) == len(named)


@pytest.mark.parametrize("control", ["\0", "\x1b", "\x0b", "\x7f", "\x85", "\x9b"])
def test_control_characters_are_removed_from_texts_and_the_row_is_kept(control: str) -> None:
    raw = {"conversation": turns(f"Wh{control}at?\n\tThis{control}?", "A.\r\n")}
    checked = check(raw)
    assert said(checked) == ["What?\n\tThis?", "A.\r\n"]
    (repair,) = checked.repairs
    assert (repair.reason, repair.value) == ("text-control", f"turn 1: {control!r}")
    assert reasons()["text-control"].action == "repaired"


def test_a_mark_that_a_control_character_cuts_is_a_mark() -> None:
    checked = check({"images": ["1.jpg"], "conversation": turns("<im\0age>What?", "A.")})
    assert said(checked)[0] == "<image>What?"
    assert reasons_of(checked) == ["text-control"]
