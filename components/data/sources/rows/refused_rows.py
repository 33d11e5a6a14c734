"""Rows of other tasks, which are refused by name: preference pairs and classification."""

from collections.abc import Mapping
from typing import Any

from components.data.sources.rejection import RowRejected
from components.data.sources.rows.normal_row import is_there

# Keys of DPO rows: TRL and LLaMA-Factory (chosen, rejected), ms-swift (rejected_response, rejected_messages).
PREFERENCE = ("rejected", "rejected_response", "rejected_messages")
CLASSIFICATION = ("labels", "label")  # TIGER-AI-Lab/Mantis data/examples/classification, and image folders of datasets


def refuse_preference(row: Mapping[str, Any]) -> None:
    """Refuse a row with an answer that must not be given.

    Raises:
        RowRejected: the row is a preference pair.
    """
    for key in PREFERENCE:
        if is_there(row.get(key)):
            raise RowRejected(
                "preference-pair",
                value=f"keys {_keys(row)}",
                threshold=f"one answer per row: remove `{key}`, and write the chosen answer as the assistant's turn",
            )


def refuse_unknown(row: Mapping[str, Any], known: tuple[str, ...]) -> RowRejected:
    """The refusal of a row that has no known form."""
    if any(row.get(key) is not None for key in CLASSIFICATION):
        return RowRejected(
            "classification-row",
            value=f"keys {_keys(row)}",
            threshold="a conversation: write the question as the user's turn and the label as the assistant's",
        )
    return RowRejected(
        "conversation-missing",
        value=f"keys {_keys(row)}" if row else "nothing",
        threshold=f"one of {', '.join(known)}; data.columns maps other keys",
    )


def _keys(row: Mapping[str, Any]) -> str:
    return ", ".join(str(key) for key, value in row.items() if value is not None)
