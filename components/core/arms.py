"""Runs that belong together: the arms of an ablation, and the run that compares them.

`runs/<parent>/arms.json` names the arms in their order, `runs/<arm>/arm.json` the parent.
"""

import json
from collections.abc import Sequence

from components.core.errors import NotFoundError
from components.core.store import ObjectStore


def write_arms(store: ObjectStore, parent: str, arms: Sequence[str]) -> None:
    """Tie the runs `arms` to the run `parent`."""
    for arm in arms:
        store.put(f"runs/{arm}/arm.json", json.dumps({"parent": parent}).encode())
    store.put(f"runs/{parent}/arms.json", json.dumps(list(arms)).encode())


def arms_of(store: ObjectStore, run: str) -> list[str]:
    """The arms of a run; none where it is no ablation."""
    try:
        arms: list[str] = json.loads(store.get(f"runs/{run}/arms.json"))
    except NotFoundError:
        return []
    return arms


def parent_of(store: ObjectStore, run: str) -> str:
    """The run that a run is an arm of; empty where it stands for itself."""
    try:
        return str(json.loads(store.get(f"runs/{run}/arm.json"))["parent"])
    except NotFoundError:
        return ""
