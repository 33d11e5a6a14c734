"""The numbers that a finished training leaves for its manifest."""

import json

from components.core.artifacts import Number
from components.core.store import ObjectStore

SUMMARY = "training.json"


def write_summary(store: ObjectStore, prefix: str, summary: dict[str, Number]) -> None:
    """Put them under `prefix`."""
    store.put(f"{prefix}/{SUMMARY}", json.dumps(summary, indent=1).encode())


def read_summary(store: ObjectStore, prefix: str) -> dict[str, Number]:
    """What `write_summary` wrote."""
    summary: dict[str, Number] = json.loads(store.get(f"{prefix}/{SUMMARY}"))
    return summary
