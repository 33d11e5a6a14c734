"""Rows with `instruction`, `input` and `output`, as Alpaca writes them. LLaMA-Factory joins both with a newline."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rows.normal_row import RawTurn, is_there
from components.data.sources.rows.query_rows import HISTORY, exchanges
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader

QUESTION_KEYS = ("instruction", "input")


def _instruction(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    there = [key for key in QUESTION_KEYS if is_there(row.get(key))]
    question = "\n".join(reader.one_text(key, row[key]) for key in there) if there else None
    return exchanges(row, reader, question, row.get("output"))


INSTRUCTION = RowForm(name="instruction", marks=("instruction", "output"), uses=("input", HISTORY), turns=_instruction)
