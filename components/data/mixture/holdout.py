"""Chooses the rows that a mixture keeps out of training, for a benchmark of the run's own data."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mantis.artifacts.held_out import HELD_OUT, HeldOutRow, held_out_content
from mantis.errors import InputError
from mantis.store.base import ObjectStore

Positions = NDArray[np.int64]
IDS_AT_ONCE = 65_536


def held_out_positions(tables: Mapping[str, Any], number: int) -> dict[str, Positions]:
    """Choose `number` rows of all tables. Returns their positions in each table, ascending.

    A row's subset and id decide alone whether it is kept out. So neither the order of rows nor the seed matters, and a
    row that joins a subset replaces at most one other row.

    Raises:
        InputError: the tables have too few rows: one must stay for training.
    """
    if not number:
        return {subset: np.empty(0, np.int64) for subset in tables}
    hashes = {subset: _hashes(subset, table) for subset, table in tables.items()}
    total = sum(map(len, hashes.values()))
    if number >= total:
        raise InputError(
            f"data.holdout = {number}, but the mixture has {total} rows.",
            remedy="Lower data.holdout, or add rows. At least one row must stay for training.",
        )
    names = list(hashes)
    subset_of = np.repeat(np.arange(len(names)), [len(hashes[name]) for name in names])
    position = np.concatenate([np.arange(len(hashes[name]), dtype=np.int64) for name in names])
    lowest = np.argsort(np.concatenate([hashes[name] for name in names]), kind="stable")[:number]
    return {name: np.sort(position[lowest[subset_of[lowest] == place]]) for place, name in enumerate(names)}


def kept_rows(rows: int, held_out: Positions) -> Positions:
    """The positions of the other rows of a table, ascending."""
    return np.delete(np.arange(rows, dtype=np.int64), held_out)


def write_held_out(
    store: ObjectStore, prefix: str, tables: Mapping[str, Any], positions: Mapping[str, Positions]
) -> None:
    """Write the list of the held-out rows below the mixture's prefix."""
    rows = []
    for subset, held in positions.items():
        names = tables[subset].take(held.tolist(), columns=["id"])["id"].to_pylist() if len(held) else []
        rows += [
            HeldOutRow(subset=subset, row=int(position), id=name) for position, name in zip(held, names, strict=True)
        ]
    store.put(f"{prefix}/{HELD_OUT}", json.dumps(held_out_content(rows), indent=1, ensure_ascii=False).encode())


def _hashes(subset: str, table: Any) -> NDArray[np.uint64]:
    """A hash of each row's subset and id, in the order of the table."""
    found: list[int] = []
    for batch in table.to_batches(columns=["id"], batch_size=IDS_AT_ONCE):
        found += [_hash(subset, name) for name in batch["id"].to_pylist()]
    return np.array(found, np.uint64)


def _hash(subset: str, name: str) -> int:
    text = f"{subset}\0{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
