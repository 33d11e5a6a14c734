"""Runs that belong together: the arms of an ablation or a sweep, and the run that compares them.

`runs/<parent>/arms.json` names the arms in their order. `runs/<arm>/arm.json` names the parent, and the arm's changes
of the recipe.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mantis.artifacts.layout import run_key
from mantis.errors import NotFoundError
from mantis.schema_versions import Form, load_json, load_rows, versioned, without_version
from mantis.store.base import ObjectStore

ARM, ARMS = "arm.json", "arms.json"


def write_arms(
    store: ObjectStore, parent: str, arms: Sequence[str], changes: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Tie the runs `arms` to the run `parent`. `changes` of its recipe are by arm: from dotted field to YAML value."""
    for arm in arms:
        content = {"parent": parent, "changes": dict((changes or {}).get(arm, {}))}
        store.put(run_key(arm, ARM), json.dumps(versioned(Form.ARMS, content)).encode())
    store.put(run_key(parent, ARMS), json.dumps(versioned(Form.ARMS, {"arms": list(arms)})).encode())


def arms_of(store: ObjectStore, run: str) -> list[str]:
    """The arms of a run; none where it compares no arms."""
    key = run_key(run, ARMS)
    try:
        return [str(arm) for arm in load_rows(Form.ARMS, "arms", store.get(key), store.uri(key))]
    except NotFoundError:
        return []


def parent_of(store: ObjectStore, run: str) -> str:
    """The run that a run is an arm of; empty where it stands for itself."""
    return str(_tie(store, run).get("parent", ""))


def changes_of(store: ObjectStore, arm: str) -> dict[str, str]:
    """The changes of an arm; empty where an earlier version tied it, or where it stands for itself."""
    return {str(field): str(value) for field, value in _tie(store, arm).get("changes", {}).items()}


def changes_in_words(changes: Mapping[str, str]) -> str:
    """`training.learning_rate = 2e-4, training.seed = 1`."""
    return ", ".join(f"{field} = {value}" for field, value in changes.items())


def _tie(store: ObjectStore, arm: str) -> dict[str, Any]:
    key = run_key(arm, ARM)
    try:
        return without_version(Form.ARMS, load_json(store.get(key), store.uri(key)), store.uri(key))
    except NotFoundError:
        return {}
