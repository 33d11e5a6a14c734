"""Rows with `query`, `response` and earlier exchanges in `history`, as ms-swift writes them."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import RawTurn, is_there, shown
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader

HISTORY = "history"


def exchanges(row: Mapping[str, Any], reader: TurnReader, question: Any, answer: Any) -> tuple[RawTurn, ...]:
    """The turns of `history`, then the question and the answer.

    Raises:
        RowRejected: `history` is no list of pairs, or a question or answer is no text.
    """
    history = row.get(HISTORY) or []
    if not isinstance(history, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise RowRejected("turn-malformed", value=f"history: {shown(history)}", threshold="a list of pairs of texts")
    turns = []
    for number, (asked, said) in enumerate([*history, (question, answer)]):
        turns.append(RawTurn(role="user", content=reader.one_text(f"turn {2 * number + 1}", asked)))
        if not is_there(said):
            if reader.unanswered and number == len(history):
                break
            raise RowRejected("answer-missing", value=f"turn {2 * number + 2}", threshold="an answer")
        turns.append(RawTurn(role="assistant", content=reader.one_text(f"turn {2 * number + 2}", said)))
    return tuple(turns)


def _query(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    return exchanges(row, reader, row["query"], row.get("response"))


QUERY = RowForm(name="query", marks=("query",), uses=("response", HISTORY), turns=_query)
