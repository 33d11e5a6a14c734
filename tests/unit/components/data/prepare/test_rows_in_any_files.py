"""Whatever rows files of any form hold: each is kept, repaired or dropped with a reason, and no text is unread."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.form_writers import FILE_FORMS, json_lines, json_list, json_object
from components.data.prepare.reasons import reasons
from components.data.prepare.row_keys import known_keys, nested_notes
from components.data.prepare.row_validator import RowResult, RowValidator, limits_of
from components.data.sources.files.form_table import SOURCE_FORMS
from components.data.sources.find import open_source
from components.data.sources.source import RowSource
from mantis.config.data_settings import DataSettings
from tests.fixtures.data import encoded, tarred

IMAGES = {"a.jpg": encoded(), "b.jpg": encoded((0, 0, 200))}
GOOD = {"query": "Good?", "response": "Yes."}  # so that every table has a column that holds a conversation
DATA = DataSettings(ignore=("ignored",))
SUBSET = "raw"
WORD = "w"  # each one becomes a word of its own

# A table has one type for a key, so the values of a key have one type in all forms of files.
TEXT = st.sampled_from([None, "", WORD, f"<image>{WORD}", f"{WORD}<image> {WORD}", f"{WORD}\x1b", " \n"])
WORDS = st.sampled_from([None, None, "", WORD])
FLAG = st.sampled_from([None, None, True, False])
NUMBER = st.sampled_from([None, None, 0.0, 1.0, 2.5, -1.0])
PATH = st.sampled_from(["a.jpg", "b.jpg", "a.jpg", "away.jpg", "../up.jpg", "", None])
IMAGE = st.fixed_dictionaries(
    {"path": PATH}, optional={"caption": WORDS, "detail": WORDS, "url": st.none() | PATH, "ignored": WORDS}
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image", "video", None])}, optional={"text": TEXT, "note": WORDS}
    ),
    max_size=3,
)
ROLE = st.sampled_from(["user", "assistant", "system", "tool", None])
MORE = {"loss": FLAG, "train": FLAG, "name": WORDS, "tool_calls": WORDS, "ignored": WORDS}


def turns(role: str, content: str, said: st.SearchStrategy[Any], **more: Any) -> st.SearchStrategy[Any]:
    """Turns in order, or in any order."""
    any_turns = st.lists(st.fixed_dictionaries({role: ROLE, content: said}, optional=more), max_size=4)
    exchange = [st.fixed_dictionaries({role: st.just(who), content: said}) for who in ("user", "assistant")]
    return any_turns | st.tuples(*exchange, *exchange).map(list) | st.tuples(*exchange).map(list)


SHARED = {
    "id": WORDS,
    "images": st.lists(IMAGE, max_size=2) | st.none(),
    "system": WORDS,
    "weight": NUMBER,
    "source": WORDS,
    "tools": WORDS,
    "rejected": st.sampled_from([None, None, None, WORD]),
    "ignored": WORDS,
}
FORMS = [
    {"conversation": turns("role", "content", TEXT, **MORE)},
    {"conversations": turns("from", "value", TEXT, **MORE)},
    {"messages": turns("role", "content", PARTS, **MORE)},
    {"query": TEXT, "response": TEXT, "history": st.lists(st.lists(TEXT, max_size=3), max_size=2)},
    {"instruction": TEXT, "input": TEXT, "output": TEXT},
    {"texts": st.lists(st.fixed_dictionaries({"user": TEXT, "assistant": TEXT}, optional=MORE), max_size=2)},
    {"prompt": TEXT, "completion": TEXT},
]
ROWS = st.sampled_from(FORMS).flatmap(
    lambda form: st.lists(st.fixed_dictionaries(form, optional=SHARED), min_size=1, max_size=8)
)


def tar(folder: Path, rows: list[Any], images: Any) -> None:
    """The images that a row names are members of its name."""
    members: dict[str, bytes] = {}
    for number, row in enumerate(rows):
        named = {str(image["path"]) for image in row.get("images") or () if image["path"] in images}
        members |= {f"{number}.{path}": images[path] for path in sorted(named)}
        text = json.dumps(row)
        for path in named:
            text = text.replace(f'"path": "{path}"', f'"path": "{number}.{path}"')
        members[f"{number}.json"] = text.encode()
    tarred(folder / "train-0.tar", members.items())


def parquet(folder: Path, rows: list[Any], images: Any) -> None:
    pq.write_table(pa.Table.from_pylist(as_table(rows)), folder / "train.parquet")


def arrow(folder: Path, rows: list[Any], images: Any) -> None:
    table = pa.Table.from_pylist(as_table(rows))
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)


def as_table(rows: list[Any]) -> list[Any]:
    """The rows under all of their keys. A table without columns would hold no rows."""
    return [dict.fromkeys(key for row in rows for key in row) | row for row in rows]


WRITERS: dict[str, Callable[[Path, Any, Any], None]] = {
    "json-list": json_list,
    "json-lines": json_lines,
    "json-object": json_object,
    "parquet": parquet,
    "arrow": arrow,
    "webdataset": tar,
}


def test_every_form_of_files_is_tried() -> None:
    assert WRITERS.keys() == {form.name for form in SOURCE_FORMS} == set(FILE_FORMS.values())


def numbered(value: Any, numbers: Iterator[int]) -> Any:
    """The value, each WORD of which is another word."""
    if isinstance(value, str):
        pieces = value.split(WORD)
        return pieces[0] + "".join(f"{WORD}{next(numbers)}.{piece}" for piece in pieces[1:])
    if isinstance(value, list):
        return [numbered(item, numbers) for item in value]
    if isinstance(value, dict):
        return {key: numbered(item, numbers) for key, item in value.items()}
    return value


def words(value: Any, harmless: frozenset[str]) -> set[str]:
    """The words of a value, without those under keys that may hold anything."""
    if isinstance(value, str):
        return set(re.findall(rf"{WORD}\d+\.", value))
    if isinstance(value, list):
        return {word for item in value for word in words(item, harmless)}
    if isinstance(value, dict):
        return {word for key, item in value.items() if key not in harmless for word in words(item, harmless)}
    return set()


ROW_KEYS, TURN_KEYS = known_keys()
HARMLESS = frozenset({"source"}) | {*DATA.ignore}
INSIDE = (TURN_KEYS.harmless | nested_notes()) - ROW_KEYS.harmless  # of a turn, a part or an image


def said(result: RowResult) -> str:
    """All text of a kept row, and what the ledger says of it."""
    assert result.row is not None
    conversation = result.row.conversation
    texts = [conversation.id, *(content for _, content, _ in conversation.said)]
    return "\n".join([*texts, *(image.path for image in result.row.images), *(entry.value for entry in result.ledger)])


def outcomes(source: RowSource) -> list[RowResult]:
    validator = RowValidator(SUBSET, source, limits_of(DATA, SUBSET), 1)
    found = list(validator.outcomes(lambda _: True))
    assert validator.read == len(found)
    return found


@pytest.mark.parametrize("form", WRITERS)
@settings(deadline=None, max_examples=20, print_blob=True)
@given(drawn=ROWS)
def test_every_row_is_kept_repaired_or_dropped_and_no_text_of_it_is_unread(
    form: str, drawn: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [GOOD, *numbered(drawn, itertools.count())]
    folder = tmp_path_factory.mktemp("any") / SUBSET
    folder.mkdir()
    WRITERS[form](folder, rows, IMAGES)
    found = outcomes(open_source(str(folder), SUBSET))
    assert [result.number for result in found] == list(range(len(rows))), "each row once"
    for result, row in zip(found, rows, strict=True):
        actions = [entry.action for entry in result.ledger]
        assert all(reasons()[entry.reason].action == entry.action for entry in result.ledger)
        if result.row is None:
            assert actions == ["dropped"]
            continue
        assert "dropped" not in actions
        unread = {word for word in words(row, HARMLESS | INSIDE) if word not in said(result)}
        assert not unread, "a text that nobody read"
        assert result.row.conversation.weight == (row.get("weight") or 1.0)
        for image in row.get("images") or ():
            assert not image["path"] or image.get("url") in (None, "", image["path"]), "the first one is read"
