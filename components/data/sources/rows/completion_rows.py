"""Rows with `prompt` and `completion`, each a text or a list of turns, as TRL writes them."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from components.data.sources.rows.normal_row import RawTurn, is_there
from components.data.sources.rows.query_rows import exchanges
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader


def _completion(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    prompt, completion = row.get("prompt"), row.get("completion")
    if not _is_list_of_turns(prompt, reader) and not _is_list_of_turns(completion, reader):
        return exchanges({}, reader, prompt, completion)
    asked: list[Any] = prompt if _is_list_of_turns(prompt, reader) else [reader.turn_of("user", prompt)]
    if not is_there(completion):
        return reader.turns(asked)
    said: list[Any] = completion if _is_list_of_turns(completion, reader) else [reader.turn_of("assistant", completion)]
    return reader.turns([*asked, *said])


def _is_list_of_turns(value: Any, reader: TurnReader) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and any(isinstance(turn, dict) and reader.has_role(turn) for turn in value)


COMPLETION = RowForm(name="completion", marks=("completion",), uses=("prompt",), question="prompt", turns=_completion)
