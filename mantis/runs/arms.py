"""Runs that belong together: the arms of an ablation, and the run that compares them.

`runs/<parent>/arms.json` names the arms in their order, `runs/<arm>/arm.json` the parent.
"""

import json
from collections.abc import Sequence

from mantis.artifacts.layout import run_key
from mantis.errors import NotFoundError
from mantis.schema_versions import Form, load_rows, versioned, without_version
from mantis.store.base import ObjectStore

ARM, ARMS = "arm.json", "arms.json"


def write_arms(store: ObjectStore, parent: str, arms: Sequence[str]) -> None:
    """Tie the runs `arms` to the run `parent`."""
    for arm in arms:
        store.put(run_key(arm, ARM), json.dumps(versioned(Form.ARMS, {"parent": parent})).encode())
    store.put(run_key(parent, ARMS), json.dumps(versioned(Form.ARMS, {"arms": list(arms)})).encode())


def arms_of(store: ObjectStore, run: str) -> list[str]:
    """The arms of a run; none where it is no ablation."""
    key = run_key(run, ARMS)
    try:
        return [str(arm) for arm in load_rows(Form.ARMS, "arms", store.get(key), store.uri(key))]
    except NotFoundError:
        return []


def parent_of(store: ObjectStore, run: str) -> str:
    """The run that a run is an arm of; empty where it stands for itself."""
    key = run_key(run, ARM)
    try:
        return str(without_version(Form.ARMS, json.loads(store.get(key)), store.uri(key))["parent"])
    except NotFoundError:
        return ""
