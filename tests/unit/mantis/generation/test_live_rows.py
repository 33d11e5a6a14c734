"""A row ends by itself, and nothing that a later token may change is sent early."""

import pytest

from mantis.generation.live_rows import LiveRow

END = 0
WORDS = {1: "The", 2: " red", 3: " squ", 4: "are", 5: ".", 6: " ", 7: "\ufffd", 8: "STOP", 9: " ST"}


def decode(tokens: list[int]) -> str:
    """Joins the words; two halves of a character are one character."""
    return "".join(WORDS[token] for token in tokens if token != END).replace("\ufffd\ufffd", "é")


def run(tokens: list[int], **row: object) -> tuple[LiveRow, list[str], str]:
    pieces: list[str] = []
    live = LiveRow(**{"max_new_tokens": 100, "send": pieces.append, **row})  # type: ignore[arg-type]
    for token in tokens:
        if live.take(token, [END], decode):
            break
    return live, pieces, live.reply(7, [END], decode).text


@pytest.mark.parametrize(
    ("tokens", "text", "finish", "count"),
    [
        ([1, 2, 3, 4, 5, END, 2], "The red square.", "stop", 6),
        ([6, 6, 1, 6, END], "The", "stop", 5),
        ([1, 6, 7, 7, END], "The é", "stop", 5),
        ([END], "", "stop", 1),
    ],
)
def test_pieces_join_to_the_response(tokens: list[int], text: str, finish: str, count: int) -> None:
    row, pieces, whole = run(tokens)
    assert whole == text
    assert "".join(pieces) == text
    assert (row.finish, len(row.tokens)) == (finish, count)
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_limit_ends_a_row() -> None:
    row, pieces, whole = run([1, 2, 3, 4, 5], max_new_tokens=2)
    assert (row.finish, whole, "".join(pieces)) == ("length", "The red", "The red")


def test_a_stop_text_is_not_sent_even_in_halves() -> None:
    row, pieces, whole = run([1, 9, 4, 2, 8, 1], stop=("STOP",))
    assert (row.finish, whole, "".join(pieces)) == ("stop", "The STare red", "The STare red")
    assert "The" in pieces  # not held back for ever
    row, pieces, whole = run([1, 3, 4, 5, 1], stop=("are.", "quare"))
    assert (row.finish, whole, "".join(pieces)) == ("stop", "The s", "The s")


def test_nobody_waits_for_a_cancelled_row() -> None:
    row, _, _ = run([1, 2, 3], cancelled=lambda: True)
    assert (row.finish, len(row.tokens)) == ("cancelled", 1)
