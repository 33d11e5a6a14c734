"""Rows with `texts`, a list of questions with their answers, as HuggingFaceM4/the_cauldron has them."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import RawTurn, is_there, shown
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader


def _texts(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    texts = row["texts"]
    if not isinstance(texts, list):
        raise RowRejected("conversation-missing", value=shown(texts), threshold="a list of {user, assistant}")
    turns = []
    for number, pair in enumerate(texts):
        if not isinstance(pair, dict):
            raise RowRejected("turn-malformed", value=f"text {number + 1}: {shown(pair)}", threshold="a mapping")
        unused = {key: value for key, value in pair.items() if key not in ("user", "assistant") and is_there(value)}
        question = reader.one_text(f"turn {2 * number + 1}", pair.get("user"))
        if reader.unanswered and number == len(texts) - 1 and not is_there(pair.get("assistant")):
            turns.append(RawTurn(role="user", content=question, unused=unused))
            break
        turns.append(RawTurn(role="user", content=question))
        answer = reader.one_text(f"turn {2 * number + 2}", pair.get("assistant"))
        turns.append(RawTurn(role="assistant", content=answer, unused=unused))
    return tuple(turns)


TEXTS = RowForm(name="texts", marks=("texts",), turns=_texts, images_first=True)
