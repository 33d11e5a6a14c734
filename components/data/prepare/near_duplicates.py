"""Finds images of different rows that look alike: their perceptual hashes differ in few bits.

Sixteen bands of 16 bits make a hash. Two hashes that differ in fewer than 16 bits agree in at least one band. So only
images that share a band are compared, and the search needs no time that grows with the square of the images.
"""

from array import array
from collections.abc import Iterator, Mapping
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
Places = NDArray[np.int64]
COLUMNS = ["row", "sha256", "phashes"]


class SeenImages:
    """The first appearance of each of N images, as arrays: an object per image would take ten times the memory."""

    def __init__(self) -> None:
        self.positions = array("q")  # of the image's row in the table
        self.rows = array("q")  # number of this row in the source
        self.places = array("i")  # of the image in its row
        self._hashes = bytearray()
        self._digests: set[str] = set()

    def see(self, position: int, row: Mapping[str, Any]) -> None:
        """Add the images of a row of the table that have a hash and are new."""
        for place, (digest, phash) in enumerate(zip(row["sha256"], row["phashes"], strict=True)):
            if phash and digest not in self._digests:
                self._digests.add(digest)
                self.positions.append(position)
                self.rows.append(row["row"])
                self.places.append(place)
                self._hashes += phash

    @property
    def hashes(self) -> Hashes:
        """Their perceptual hashes, [N, 4]."""
        return hashes_from([bytes(self._hashes)])


def near_duplicates(table: Any, subset: str) -> list[LedgerEntry]:
    """One ledger entry for each row of a dataset that shows an image much like an image of an earlier row.

    Images with the same bytes are left out: many rows may ask about one image. So are images of one row, since tasks
    such as finding differences need them.
    """
    images = SeenImages()
    batches = table.to_batches(columns=COLUMNS, batch_size=ROWS_AT_ONCE)
    for position, row in enumerate(row for batch in batches for row in batch.to_pylist()):
        images.see(position, row)
    earlier, distances = _nearest(images.hashes, np.array(images.rows, np.int64))
    best: dict[int, int] = {}  # row -> its image with the smallest distance
    for place in np.flatnonzero(distances <= NEAR).tolist():
        row = images.rows[place]
        best[row] = min(place, best.get(row, place), key=lambda image: (distances[image], image))
    found = [at for _, at in sorted(best.items())]
    names = _names(table, images, {*found, *earlier[found].tolist()})
    return [_entry(subset, names[at], names[int(earlier[at])], int(distances[at])) for at in found]


@dataclass(frozen=True, kw_only=True)
class NamedImage:
    """The row of an image in the source, the row's id, and the image's path."""

    row: int
    id: str
    path: str


def _names(table: Any, images: SeenImages, wanted: set[int]) -> dict[int, NamedImage]:
    """Ids and paths of the images `wanted`, by their place among all."""
    ordered = sorted(wanted)
    named: dict[int, NamedImage] = {}
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        part = ordered[start : start + ROWS_AT_ONCE]
        rows = table.take([images.positions[at] for at in part], columns=["row", "id", "paths"]).to_pylist()
        for at, row in zip(part, rows, strict=True):
            named[at] = NamedImage(row=row["row"], id=row["id"], path=row["paths"][images.places[at]])
    return named


def _nearest(hashes: Hashes, rows: Places) -> tuple[Places, Places]:
    """The nearest earlier image of another row for each of N images, and the bits that differ; more than NEAR if none.

    Of several at one distance the first image is the nearest.
    """
    earlier, distances = np.full(len(hashes), -1), np.full(len(hashes), NEAR + 1)
    for found, other, bits in near_pairs(hashes):
        apart = rows[found] != rows[other]
        later, before, far = found[apart], other[apart], bits[apart]
        nearer = (far < distances[later]) | ((far == distances[later]) & (before < earlier[later]))
        earlier[later[nearer]], distances[later[nearer]] = before[nearer], far[nearer]
    return earlier, distances


def near_pairs(hashes: Hashes) -> Iterator[tuple[Places, Places, Places]]:
    """Pairs of rows of `hashes` [N, 4] that differ in at most NEAR bits: the later rows, the earlier ones, the bits.

    Each later row stands at most once in the arrays of one step. A pair may occur in several steps. Each row is
    compared with at most WINDOW earlier ones that share a band.
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
            distances = np.bitwise_count(hashes[later] ^ hashes[earlier]).sum(axis=1, dtype=np.int64)
            kept = distances <= NEAR
            yield later[kept], earlier[kept], distances[kept]


def _entry(subset: str, later: NamedImage, earlier: NamedImage, distance: int) -> LedgerEntry:
    note = RowRepaired(
        reason="image-near-duplicate",
        value=f"{later.path}: {distance} of {BITS} bits differ from {earlier.path} of row {earlier.row}",
        threshold=str(NEAR),
    )
    return noted(subset, later.row, later.id, note)
