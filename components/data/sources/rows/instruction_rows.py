"""Rows with `instruction`, `input` and `output`, as Alpaca writes them. LLaMA-Factory joins both with a newline."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rows.normal_row import RawTurn, is_there
from components.data.sources.rows.query_rows import HISTORY, exchanges
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader


def _instruction(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    question = reader.one_text("instruction", row["instruction"])
    if is_there(row.get("input")):
        question = f"{question}\n{reader.one_text('input', row['input'])}"
    return exchanges(row, reader, question, row.get("output"))


INSTRUCTION = RowForm(name="instruction", marks=("instruction",), uses=("input", "output", HISTORY), turns=_instruction)
