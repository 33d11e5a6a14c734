import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.data.prepare.near_duplicates import NEAR, near_duplicates, near_pairs
from mantis.images.perceptual_hash import WORDS
from mantis.store.lance_tables import open_table, write_table
from mantis.store.local import LocalStore


def flipped(phash: NDArray[np.uint64], bits: list[int]) -> NDArray[np.uint64]:
    changed = phash.copy()
    for bit in bits:
        changed[bit // 64] ^= np.uint64(1 << (bit % 64))
    return changed


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(0, 20), seed=st.integers(0, 2**32 - 1))
def test_every_pair_within_the_limit_is_found(data: st.DataObject, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, (count, WORDS), dtype=np.uint64)
    for place in range(1, count):
        if data.draw(st.booleans()):
            near = data.draw(st.lists(st.integers(0, 255), unique=True, max_size=NEAR + 4))
            hashes[place] = flipped(hashes[place - 1], near)
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    expected = {
        (later, earlier, int(distances[later, earlier]))
        for later in range(count)
        for earlier in range(later)
        if distances[later, earlier] <= NEAR
    }
    found = {pair for part in near_pairs(hashes) for pair in zip(*(array.tolist() for array in part), strict=True)}
    assert found == expected


def test_images_of_one_row_and_of_equal_bytes_are_no_near_duplicates(local_store: LocalStore) -> None:
    one = np.arange(WORDS, dtype=np.uint64)
    other = flipped(one, [3, 200])
    table = pa.table(
        {
            "row": [0, 1, 5, 6],
            "id": ["a", "b", "c", "d"],
            "paths": [["1.jpg"], ["2.jpg", "3.jpg"], ["0.jpg", "4.jpg"], ["5.jpg"]],
            "sha256": [["s1"], ["far1", "far2"], ["plain", "s4"], ["s1"]],
            "phashes": [
                [one.tobytes()],
                [(~one).tobytes(), flipped(~one, [9]).tobytes()],
                [b"", other.tobytes()],
                [one.tobytes()],
            ],
        }
    )
    write_table(local_store, "t.lance", table.schema, table.to_batches())
    (entry,) = near_duplicates(open_table(local_store, "t.lance"), "raw")
    assert (entry.row, entry.id, entry.action, entry.reason) == (5, "c", "noted", "image-near-duplicate")
    assert entry.value == "4.jpg: 2 of 256 bits differ from 1.jpg of row 0"
