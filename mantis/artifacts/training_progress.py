"""progress.json beside the checkpoints of a running training, for people who ask how far it is."""

from datetime import UTC, datetime

from pydantic import Field

from mantis.schema_versions import Form, Versioned, origin
from mantis.store.base import ObjectStore

PROGRESS = "progress.json"


class TrainingProgress(Versioned):
    """How far a training is, at the UTC time `at`; a figure is None until it is known. Losses are finite, in nats."""

    form = Form.TRAINING_PROGRESS

    step: int
    steps: int
    loss: float | None
    held_out_loss: float | None
    samples_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))


def put_progress(store: ObjectStore, prefix: str, progress: TrainingProgress) -> None:
    """Store the progress of the training at `prefix`."""
    store.put(f"{prefix}/{PROGRESS}", progress.model_dump_json().encode())


def read_progress(store: ObjectStore, prefix: str) -> TrainingProgress | None:
    """Read the last progress of the training at `prefix`; None before its first seconds and after its end."""
    key = f"{prefix}/{PROGRESS}"
    if store.stat(key) is None:
        return None
    return TrainingProgress.model_validate_json(store.get(key), context=origin(store.uri(key)))


def delete_progress(store: ObjectStore, prefix: str) -> None:
    """Delete the progress of a finished training."""
    store.delete(f"{prefix}/{PROGRESS}")
