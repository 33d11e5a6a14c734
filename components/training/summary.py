"""The numbers that a finished training leaves for its manifest."""

import json

from components.core.artifacts import Number
from components.core.store import ObjectStore
from components.training.accounting import goodput

SUMMARY = "training.json"
ATTEMPT = "attempt_seconds"  # of the last attempt's ranks; the launcher knows what passed around them
OTHER, CAUSE = "seconds_other", "seconds_"


def write_summary(store: ObjectStore, prefix: str, summary: dict[str, Number]) -> None:
    """Put them under `prefix`."""
    store.put(f"{prefix}/{SUMMARY}", json.dumps(summary, indent=1).encode())


def read_summary(store: ObjectStore, prefix: str) -> dict[str, Number]:
    """What `write_summary` wrote."""
    summary: dict[str, Number] = json.loads(store.get(f"{prefix}/{SUMMARY}"))
    return summary


def with_launching(summary: dict[str, Number], wall: float) -> dict[str, Number]:
    """The summary, in which the causes of goodput sum to all of the time that its last attempt took from outside.

    `wall` seconds passed while whoever launched the ranks waited for them: torchrun starts and ends them, too.
    """
    whole = {name: value for name, value in summary.items() if name != ATTEMPT}
    whole[OTHER] = float(whole[OTHER]) + max(0.0, wall - float(summary.get(ATTEMPT, wall)))
    seconds = {name.removeprefix(CAUSE): float(value) for name, value in whole.items() if name.startswith(CAUSE)}
    return whole | {"goodput": goodput(seconds)}
