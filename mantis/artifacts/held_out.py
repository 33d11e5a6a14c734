"""holdout.json of a mixture and of an evaluation: the rows that training never sees, and a model's figures on them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from mantis.artifacts.manifest import Manifest, read_manifest
from mantis.errors import InputError
from mantis.schema_versions import Form, load_rows, versioned
from mantis.store.base import ObjectStore

HELD_OUT = "holdout.json"
HELD_OUT_INDEX = "held_out.lance"  # the lengths of the held-out rows, as index.lance has them of trained rows
BENCHMARK = "holdout"  # the name of the benchmark


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """A row of a dataset: its subset, its position in the subset's table, and its id."""

    subset: str
    row: int
    id: str


class HeldOutScore(BaseModel):
    """A model's figures on held-out rows: of one subset, or of all if `subset` is empty.

    `loss` is in nats per token: the mean over samples of the mean over the tokens of the expected answer. `exact_match`
    and `token_f1` are shares from 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    subset: str
    samples: int
    missing: int
    loss: float
    exact_match: float
    token_f1: float


def held_out_scores_content(rows: Sequence[HeldOutScore]) -> dict[str, Any]:
    """The content of an evaluation's holdout.json."""
    return versioned(Form.HELD_OUT_SCORES, {"rows": [row.model_dump(mode="json") for row in rows]})


def held_out_content(rows: Sequence[HeldOutRow]) -> dict[str, Any]:
    """The content of a mixture's holdout.json."""
    return versioned(Form.HELD_OUT, {"rows": [asdict(row) for row in rows]})


def held_out_rows(store: ObjectStore, mixture: Manifest) -> list[HeldOutRow]:
    """Read the held-out rows of a mixture; empty if it keeps none out.

    Raises:
        VersionError: a later version of this program wrote the list.
    """
    key = f"{mixture.key}/{HELD_OUT}"
    if store.stat(key) is None:
        return []
    return [HeldOutRow(**row) for row in load_rows(Form.HELD_OUT, "rows", store.get(key), store.uri(key))]


def mixture_of(store: ObjectStore, model: Manifest) -> Manifest:
    """Find the mixture that `model` was trained on, through its checkpoint.

    Raises:
        InputError: the store does not have it, e.g. because the model was imported.
    """
    found: Manifest | None = model
    for name in ("checkpoint", "mixture"):
        reference = found.inputs.get(name) if found else None
        found = read_manifest(store, reference.key) if reference else None
    if found is None:
        raise InputError(
            f"{store.uri(model.key)} was not trained on a mixture of this store, so it has no held-out rows.",
            remedy="Set data.holdout = 0, or evaluate a model that a run with data.holdout has trained.",
        )
    return found
