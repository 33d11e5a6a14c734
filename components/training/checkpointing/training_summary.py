"""training.json: the figures of a finished training for its manifest."""

import json

from components.training.monitoring.goodput import goodput
from mantis.artifacts.manifest import Number
from mantis.schema_versions import Form, load_json, versioned, without_version
from mantis.store.base import ObjectStore

SUMMARY = "training.json"
OTHER, CAUSE = "seconds_other", "seconds_"


def write_summary(store: ObjectStore, prefix: str, summary: dict[str, Number]) -> None:
    """Store the summary under `prefix`, which says that everything there is whole."""
    text = json.dumps(versioned(Form.TRAINING_SUMMARY, summary), indent=1).encode()
    store.commit(f"{prefix}/{SUMMARY}", text, after=[entry.key for entry in store.list(prefix)])


def read_summary(store: ObjectStore, prefix: str) -> dict[str, Number]:
    """Read the summary that `write_summary` stored."""
    key = f"{prefix}/{SUMMARY}"
    return without_version(Form.TRAINING_SUMMARY, load_json(store.get(key), store.uri(key)), store.uri(key))


def is_whole(store: ObjectStore, prefix: str) -> bool:
    """Whether the training under `prefix` is complete: the ranks store the summary last."""
    return store.stat(f"{prefix}/{SUMMARY}") is not None


def with_launching(summary: dict[str, Number], *, before: float, wall: float) -> dict[str, Number]:
    """The summary with the launcher's time added to `seconds_other`, and with `goodput`.

    The ranks do not see the time in which torchrun or a job's pods start and end.

    Args:
        summary: the figures of the ranks.
        before: seconds that all attempts had counted when the launcher began to wait for the ranks.
        wall: seconds that the launcher waited.
    """
    seconds = {name: float(value) for name, value in summary.items() if name.startswith(CAUSE)}
    seconds[OTHER] += max(0.0, before + wall - sum(seconds.values()))
    whole = goodput({name.removeprefix(CAUSE): value for name, value in seconds.items()})
    return summary | seconds | {"goodput": whole}
