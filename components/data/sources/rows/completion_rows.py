"""Rows with `prompt` and `completion`, each a text or a list of turns, as TRL writes them."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rows.normal_row import RawTurn, is_there
from components.data.sources.rows.query_rows import exchanges
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader


def _completion(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and (isinstance(completion, list) or not is_there(completion)):
        return reader.turns([*prompt, *(completion or ())])
    return exchanges({}, reader, prompt, completion)


COMPLETION = RowForm(name="completion", marks=("completion",), uses=("prompt",), question="prompt", turns=_completion)
