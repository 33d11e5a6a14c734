"""Rows that hold a list of turns: Mantis, LLaVA and ShareGPT (`conversation`), OpenAI and TRL (`messages`)."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rows.normal_row import RawTurn, is_there
from components.data.sources.rows.row_form import RowForm
from components.data.sources.rows.turn_lists import TurnReader

CONVERSATION_KEYS = ("conversations", "conversation")
MESSAGES_KEYS = ("messages",)


def _conversation(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    return reader.turns(next(row[key] for key in CONVERSATION_KEYS if is_there(row.get(key))))


def _messages(row: Mapping[str, Any], reader: TurnReader) -> tuple[RawTurn, ...]:
    return reader.turns(row["messages"])


CONVERSATION = RowForm(name="conversation", marks=CONVERSATION_KEYS, same=CONVERSATION_KEYS, turns=_conversation)
MESSAGES = RowForm(name="messages", marks=MESSAGES_KEYS, turns=_messages)
