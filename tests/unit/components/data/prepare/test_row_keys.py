"""The keys that a form leaves over: each is used, harmless, ignored by the recipe, or the reason of a refusal."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.prepare.row_keys import known_keys, nested_notes, require_nested_known, row_weight, turn_learned
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import NestedKeys

NONE: frozenset[str] = frozenset()


def refused(unused: dict[str, Any]) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        row_weight(unused, NONE)
    return caught.value


def refused_turn(role: str, unused: dict[str, Any]) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        turn_learned("turn 2", role, unused, NONE)
    return caught.value


def test_a_weight_is_read() -> None:
    assert row_weight({"weight": 2, "source": "somewhere", "metadata": {"a": 1}}, NONE) == 2.0
    assert row_weight({"source": "somewhere"}, NONE) == row_weight({}, NONE) == 1.0


@pytest.mark.parametrize("weight", [0, -1, True, "2", float("inf"), float("nan"), [1]])
def test_a_weight_that_is_no_number_above_0_is_refused(weight: Any) -> None:
    assert refused({"weight": weight}).reason == "weight-malformed"


def test_sound_is_refused_by_name() -> None:
    refusal = refused({"audios": ["a.wav"]})
    assert (refusal.reason, refusal.value) == ("media-unsupported", "audios")


def test_an_unknown_key_is_named_and_can_be_ignored() -> None:
    refusal = refused({"tools": "[]", "source": "x", "kto_tag": False})
    assert (refusal.reason, refusal.value) == ("key-unknown", "row: 'tools', 'kto_tag'")
    assert row_weight({"tools": "[]", "kto_tag": False}, frozenset({"tools", "kto_tag"})) == 1.0


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_a_key_without_a_value_is_as_good_as_absent(nothing: Any) -> None:
    assert row_weight({"tools": nothing, "weight": nothing, "audio": nothing}, NONE) == 1.0
    assert turn_learned("turn 2", "assistant", {"loss": nothing, "odd": nothing}, NONE)


@pytest.mark.parametrize(
    ("unused", "learned"),
    [
        ({}, True),
        ({"loss": False}, False),
        ({"loss": True}, True),
        ({"train": False}, False),
        ({"training": 0}, False),
        ({"weight": 0}, False),
        ({"weight": 1}, True),
        ({"loss": False, "train": False}, False),
        ({"name": "Ann"}, True),
    ],
)
def test_a_flag_decides_whether_an_answer_is_learned(unused: dict[str, Any], learned: bool) -> None:
    assert turn_learned("turn 2", "assistant", unused, NONE) is learned


@pytest.mark.parametrize(
    ("role", "unused"),
    [
        ("assistant", {"loss": "no"}),
        ("assistant", {"weight": 0.5}),
        ("assistant", {"loss": [False]}),
        ("assistant", {"loss": True, "train": False}),
        ("user", {"loss": True}),
        ("user", {"train": 1}),
    ],
)
def test_a_flag_that_cannot_be_followed_is_refused(role: str, unused: dict[str, Any]) -> None:
    assert refused_turn(role, unused).reason == "loss-malformed"


def test_an_unknown_key_of_a_turn_is_named_with_its_place() -> None:
    refusal = refused_turn("assistant", {"tool_calls": [1]})
    assert (refusal.reason, refusal.value) == ("key-unknown", "turn 2: 'tool_calls'")
    assert turn_learned("turn 2", "assistant", {"tool_calls": [1]}, frozenset({"tool_calls"}))


def test_an_unknown_key_of_a_nested_mapping_is_named_with_its_place() -> None:
    nested = [NestedKeys(where="image 2", unused={"detail": "low", "foo": 1})]
    with pytest.raises(RowRejected) as caught:
        require_nested_known(nested, NONE)
    assert (caught.value.reason, caught.value.value) == ("key-unknown", "image 2: 'foo'")
    require_nested_known(nested, frozenset({"foo"}))
    require_nested_known([NestedKeys(where="image 1", unused=dict.fromkeys(nested_notes(), 1))], NONE)


def outcome(read: Callable[..., Any], *given: Any) -> Any:
    """The result, or the reason of the refusal."""
    try:
        return read(*given)
    except RowRejected as refusal:
        return refusal.reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
ROW_KEYS, TURN_KEYS = known_keys()
KNOWN = sorted({*ROW_KEYS.harmless, ROW_KEYS.weight, *TURN_KEYS.learned, *TURN_KEYS.harmless})
KEYS = st.sampled_from([*KNOWN, "audio", "tools", "odd"]) | st.text(max_size=4)


@given(unused=st.dictionaries(KEYS, VALUES, max_size=4), ignore=st.frozensets(KEYS, max_size=2))
def test_no_key_of_a_row_is_unread(unused: dict[str, Any], ignore: frozenset[str]) -> None:
    """A key without a use changes nothing only if it is listed as harmless, or the recipe ignores it."""
    weight = outcome(row_weight, unused, ignore)
    if isinstance(weight, str):
        assert weight in {"key-unknown", "weight-malformed", *ROW_KEYS.refused}
        return
    unread = {key for key, value in unused.items() if key not in ignore and value not in (None, "", b"", [], {})}
    assert unread - {"weight"} <= ROW_KEYS.harmless
    assert weight == (unused["weight"] if "weight" in unread else 1.0)


@given(unused=st.dictionaries(KEYS, VALUES, max_size=4), role=st.sampled_from(["user", "assistant", "system"]))
def test_no_key_of_a_turn_is_unread(unused: dict[str, Any], role: str) -> None:
    learned = outcome(turn_learned, "turn 1", role, unused, NONE)
    if isinstance(learned, str):
        assert learned in {"key-unknown", "loss-malformed"}
        return
    unread = {key for key, value in unused.items() if value not in (None, "", b"", [], {})}
    flags = unread & set(TURN_KEYS.learned)
    assert unread - flags <= TURN_KEYS.harmless
    assert learned == all(unused[key] for key in flags)
