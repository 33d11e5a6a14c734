"""Judged responses: the lines of an evaluation. The raw ones, which no score changes, are in the journal."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mantis.hashing import fingerprint
from mantis.schema_versions import Form, versioned
from mantis.store.base import ObjectStore

FOLDER = "responses"  # within an evaluation
ACTUAL = "actual"  # the condition of the benchmark as it is, without a control
PART = 4096  # samples in one object
CORRECT = 0.5  # score from which an answer is shown as right


@dataclass(frozen=True, kw_only=True)
class Response:
    """A line of `responses/<condition>-<part>.jsonl`; docs/reference/artifacts.md describes each field.

    `images` are the images that the model saw: [{"path", "sha256"}]. `target` is `Target.to_json()`. `official` and
    `strict` are scores from 0 to 1, and so are the `variants` of the metric, by name. `score` is that of the recipe's
    scoring profile. `parsed` says whether this profile found an answer in the response. `cut` says whether the
    response was too long, so that only its beginning and its end were scored. `cluster` names the clip, or is empty.
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
    parsed: bool
    variants: dict[str, float] = field(default_factory=dict)
    cut: bool = False
    cluster: str = ""


def put_responses(store: ObjectStore, prefix: str, condition: str, responses: Sequence[Response]) -> None:
    """Write the lines in parts of PART samples, the same responses always as the same bytes."""
    for number, start in enumerate(range(0, len(responses), PART)):
        part = responses[start : start + PART]
        lines = [json.dumps(versioned(Form.RESPONSE, asdict(each)), ensure_ascii=False) for each in part]
        store.put(f"{prefix}/{FOLDER}/{condition}-{number:05d}.jsonl", ("\n".join(lines) + "\n").encode())


def samples_digest(store: ObjectStore, prefix: str) -> str:
    """A hash of the samples of an evaluation: ids, questions, images and answers, whatever model was asked."""
    asked = []
    for entry in store.list(f"{prefix}/{FOLDER}"):
        if entry.key.rpartition("/")[2].startswith(f"{ACTUAL}-"):
            for line in store.get(entry.key).splitlines():
                row = json.loads(line)
                images = [image["sha256"] for image in row["images"]]
                asked.append([row["id"], row["question"], images, row["answer"]])
    return fingerprint(sorted(asked))
