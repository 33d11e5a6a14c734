"""The numbers that a finished training leaves for its manifest."""

import json

from components.core.artifacts import Number
from components.core.store import ObjectStore
from components.core.versions import Form, versioned, without_version
from components.training.accounting import goodput

SUMMARY = "training.json"
OTHER, CAUSE = "seconds_other", "seconds_"


def write_summary(store: ObjectStore, prefix: str, summary: dict[str, Number]) -> None:
    """Put them under `prefix`."""
    store.put(f"{prefix}/{SUMMARY}", json.dumps(versioned(Form.TRAINING_SUMMARY, summary), indent=1).encode())


def read_summary(store: ObjectStore, prefix: str) -> dict[str, Number]:
    """What `write_summary` wrote."""
    key = f"{prefix}/{SUMMARY}"
    return without_version(Form.TRAINING_SUMMARY, json.loads(store.get(key)), store.uri(key))


def is_whole(store: ObjectStore, prefix: str) -> bool:
    """Whether the training under `prefix` came to its end: the summary is what the ranks write last."""
    return store.stat(f"{prefix}/{SUMMARY}") is not None


def with_launching(summary: dict[str, Number], *, before: float, wall: float) -> dict[str, Number]:
    """The summary, in which the causes of goodput sum to all of the time that training took from outside.

    `wall` seconds passed while whoever launched the ranks waited for them: torchrun starts and ends them, and a job's
    pods come and go. All attempts had counted `before` seconds when it began to wait.
    """
    seconds = {name: float(value) for name, value in summary.items() if name.startswith(CAUSE)}
    seconds[OTHER] += max(0.0, before + wall - sum(seconds.values()))
    whole = goodput({name.removeprefix(CAUSE): value for name, value in seconds.items()})
    return summary | seconds | {"goodput": whole}
