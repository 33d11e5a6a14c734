"""Whatever a row of any form holds, it is kept or refused with a known reason, and none of its keys is unread."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.form_writers import ROW_WRITERS, Images, Row
from components.data.prepare.conversation_rules import Checked, ConversationRules
from components.data.prepare.reasons import reasons
from components.data.sources.rejection import RowRejected
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.row_reader import AS_IT_IS, ROW_FORMS, SHARED_KEYS

RULES = ConversationRules(max_images=8, max_turn_characters=1000, ignore=frozenset({"ignored"}))
IMAGES = {"a.jpg": b"a", "b.jpg": b"b"}
SAID = ["<image>One?\nOr two?", "One.", "And <image>?", "Two."]
ROW: Row = {
    "id": "1",
    "images": list(IMAGES),
    "conversation": [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(SAID)],
}


def outcome(row: Any) -> Checked | RowRejected:
    try:
        return RULES.check("row", AS_IT_IS.read(row))
    except RowRejected as refusal:
        return refusal


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a row: the row itself, its turns, the parts of their content, its images."""
    if isinstance(value, list):
        for item in value:
            yield from mappings(item)
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from mappings(item)


@pytest.mark.parametrize("write", ROW_WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("value", ["text", 1, False, [0], {"a": 1}])
def test_a_key_that_no_form_uses_is_noticed_wherever_it_stands(write: Callable[[Row, Images], Row], value: Any) -> None:
    row = write(ROW, IMAGES)
    assert isinstance(outcome(row), Checked)
    for place in range(len(list(mappings(row)))):
        changed = copy.deepcopy(row)
        list(mappings(changed))[place]["surprise"] = value
        refused = outcome(changed)
        assert isinstance(refused, RowRejected), (place, changed)
        assert (refused.reason, refused.value.rpartition(": ")[2]) == ("key-unknown", "'surprise'")


@pytest.mark.parametrize("write", ROW_WRITERS, ids=lambda write: write.__name__)
def test_no_text_of_a_row_is_unread(write: Callable[[Row, Images], Row]) -> None:
    """Each text that a form holds is in the conversation, in order."""
    checked = outcome(write(ROW, IMAGES))
    assert isinstance(checked, Checked)
    assert [turn.content for turn in checked.turns] == SAID
    assert len(checked.media) == 2
    assert checked.repairs == ()


TEXTS = st.sampled_from(["", "a", "<image>", "<video>", "What?", " \n", "\x1b", "\ud800", "https://x.org/a.jpg"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | TEXTS | st.just(b"\xff")
TURN_KEYS = ["role", "from", "content", "value", "text", "user", "assistant", "type", "image", "loss", "weight", "x"]
ROLES = st.sampled_from(["user", "assistant", "human", "gpt", "system", "tool"])
VALUES = st.recursive(
    SCALARS | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TURN_KEYS), inner, max_size=3),
    max_leaves=8,
)
ROW_KEYS = st.sampled_from([*SHARED_KEYS, "weight", "source", "tools", "ignored", "rejected", "label", "x"])


@pytest.mark.parametrize("form", ROW_FORMS, ids=lambda form: form.name)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_row_of_any_form_is_kept_or_refused_with_a_known_reason(form: RowForm, data: st.DataObject) -> None:
    keys = [*form.marks, *form.uses]
    row = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(keys, VALUES)), label="keys of the form")
    row |= data.draw(st.dictionaries(ROW_KEYS, VALUES, max_size=3), label="other keys")
    before = copy.deepcopy(row)
    found = outcome(row)
    assert repr(row) == repr(before), "reading changes no row"
    if isinstance(found, RowRejected):
        assert reasons()[found.reason].action == "dropped"
        return
    assert not {"tools", "x", "rejected"} & {key for key, value in row.items() if value not in (None, "", b"", [], {})}
    assert (found.turns[0].role, found.turns[-1].role) == ("user", "assistant")
    assert all(reasons()[repair.reason].action == "repaired" for repair in found.repairs)
