"""The checkpoint that training writes and conversion reads: its files, and the COMMIT of each step.

<training>/step-00000100/<files of every rank>, state.json, COMMIT
<training>/probe.safetensors, metrics.jsonl, model/
"""

from pydantic import ValidationError

from mantis.artifacts.layout import COMMIT, commit_key, step_of
from mantis.artifacts.manifest import File
from mantis.errors import IntegrityError
from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore

PROBE = "probe.safetensors"  # a packed batch and the trained model's logits: conversion repeats the computation
METRICS = "metrics.jsonl"  # beside the steps; schema version 1 had it in each step, too


class Commit(Versioned):
    """`COMMIT`: all files of a checkpoint. A folder is a checkpoint only if it holds this file."""

    form = Form.COMMIT

    step: int
    world_size: int
    zero_stage: int
    files: tuple[File, ...]


def committed(store: ObjectStore, prefix: str) -> list[int]:
    """Steps of the committed checkpoints of the training at `prefix`, newest first."""
    folders = [entry.key.removesuffix(f"/{COMMIT}") for entry in store.list(prefix) if entry.key.endswith(f"/{COMMIT}")]
    return sorted((step for folder in folders if (step := step_of(folder)) is not None), reverse=True)


def read_commit(store: ObjectStore, prefix: str, step: int) -> Commit:
    """Read COMMIT of a step of the training at `prefix`.

    Raises:
        IntegrityError: the object is not a valid COMMIT.
        NotFoundError: there is no such object.
        VersionError: a later version of this program wrote it.
    """
    key = commit_key(prefix, step)
    try:
        return Commit.model_validate_json(store.get(key), context=origin(store.uri(key)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise IntegrityError(
            f"{store.uri(key)} is no COMMIT: {field}: {first['msg']}.", remedy="Delete that step's folder."
        ) from None
