"""Judged responses: the lines of an evaluation. The raw ones, which no score changes, are in the journal."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mantis.schema_versions import Form, versioned
from mantis.store.base import ObjectStore

PART = 4096  # samples in one object
CORRECT = 0.5  # credit from which an answer is shown as right


@dataclass(frozen=True, kw_only=True)
class Response:
    """A line of `responses/<condition>-<part>.jsonl`; docs/architecture.md says what each field is.

    `images` are the pictures that were shown: [{"path", "sha256"}]. `target` is `Target.to_json()`. `official` and
    `strict` are credit from 0 to 1, `score` that of the recipe's scoring profile. `understood`: strict scoring could
    make something of the response.
    """

    id: str
    skill: str
    unit: str
    question: str
    images: list[dict[str, str]]
    response: str
    answer: str
    target: dict[str, Any]
    official: float
    strict: float
    score: float
    correct: bool
    understood: bool


def put_responses(store: ObjectStore, prefix: str, condition: str, responses: Sequence[Response]) -> None:
    """Write the lines in parts of PART samples, the same responses always as the same bytes."""
    for number, start in enumerate(range(0, len(responses), PART)):
        part = responses[start : start + PART]
        lines = [json.dumps(versioned(Form.RESPONSE, asdict(each)), ensure_ascii=False) for each in part]
        store.put(f"{prefix}/responses/{condition}-{number:05d}.jsonl", ("\n".join(lines) + "\n").encode())
