"""Finds images of different rows that look alike: their perceptual hashes differ in few bits.

Sixteen bands of 16 bits make a hash. Two hashes that differ in fewer than 16 bits agree in at least one band. So only
images that share a band are compared, and the search needs no time that grows with the square of the images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.prepare.ledger import LedgerEntry, noted
from components.data.sources.rejection import RowRepaired
from mantis.images.perceptual_hash import BITS, Hashes, hashes_from

BAND_BITS = 16
NEAR = BAND_BITS - 1  # bits: a recompressed or halved photograph differs by at most 18 in 95 % of the cases
WINDOW = 128  # images before it in a band that an image is compared with: it bounds the time where all look alike
ROWS_AT_ONCE = 8192
COLUMNS = ["row", "id", "paths", "sha256", "phashes"]


@dataclass(frozen=True, kw_only=True)
class SeenImage:
    """The first appearance of an image: its row in the source, the row's id, and its path."""

    row: int
    id: str
    path: str


def near_duplicates(table: Any, subset: str) -> list[LedgerEntry]:
    """One ledger entry for each row of a dataset that shows an image much like an image of an earlier row.

    Images with the same bytes are left out: many rows may ask about one image. So are images of one row, since tasks
    such as finding differences need them.
    """
    seen: dict[str, SeenImage] = {}
    hashes: list[bytes] = []
    for batch in table.to_batches(columns=COLUMNS, batch_size=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            for path, digest, phash in zip(row["paths"], row["sha256"], row["phashes"], strict=True):
                if phash and digest not in seen:
                    seen[digest] = SeenImage(row=row["row"], id=row["id"], path=path)
                    hashes.append(phash)
    images = list(seen.values())
    nearest: dict[int, tuple[int, int, int]] = {}  # row -> distance, image, earlier image
    for later, earlier, distance in near_pairs(hashes_from(hashes)):
        if images[later].row != images[earlier].row:
            found = (distance, later, earlier)
            nearest[images[later].row] = min(found, nearest.get(images[later].row, found))
    return [_entry(subset, images[later], images[earlier], far) for _, (far, later, earlier) in sorted(nearest.items())]


def near_pairs(hashes: Hashes) -> Iterator[tuple[int, int, int]]:
    """Pairs of rows of `hashes` [N, 4] that differ in at most NEAR bits: the later row, the earlier one, the bits.

    A pair may be yielded several times. Each row is compared with at most WINDOW earlier ones that share a band.
    """
    bands = hashes.view(np.uint16)
    for band in range(bands.shape[1]):
        keys = bands[:, band]
        order = np.argsort(keys, kind="stable")
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            same = keys[order[step:]] == keys[order[:-step]]
            if not same.any():
                break
            later, earlier = order[step:][same], order[:-step][same]
            yield from _near(hashes, later, earlier)


def _near(hashes: Hashes, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    distances = np.bitwise_count(hashes[later] ^ hashes[earlier]).sum(axis=1, dtype=np.int64)
    kept = distances <= NEAR
    yield from zip(later[kept].tolist(), earlier[kept].tolist(), distances[kept].tolist(), strict=True)


def _entry(subset: str, later: SeenImage, earlier: SeenImage, distance: int) -> LedgerEntry:
    note = RowRepaired(
        reason="image-near-duplicate",
        value=f"{later.path}: {distance} of {BITS} bits differ from {earlier.path} of row {earlier.row}",
        threshold=str(NEAR),
    )
    return noted(subset, later.row, later.id, note)
