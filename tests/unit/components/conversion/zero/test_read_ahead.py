"""Long ranges, fetched in advance, give the bytes of many small reads."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from components.conversion.zero import read_ahead
from components.conversion.zero.byte_sources import StoreSource
from components.conversion.zero.read_ahead import Range, reading_ahead
from components.conversion.zero.torch_zip import StoragePiece
from components.conversion.zero.zero_checkpoint import MasterTensor
from mantis.errors import ConversionError
from mantis.store.local import LocalStore

WINDOW = 64  # bytes, so that most tensors cross several windows


class RecordedSource(StoreSource):
    """An object of the store that records what is read."""

    def __init__(self, store: LocalStore, key: str, size: int) -> None:
        super().__init__(store, key, size)
        self.requests: list[Range] = []

    def read(self, start: int, length: int) -> bytes:
        self.requests.append((start, start + length))
        return super().read(start, length)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "LONGEST", WINDOW)
    monkeypatch.setattr(read_ahead, "SHORTEST", WINDOW)


def stored(store: LocalStore, key: str, elements: int) -> RecordedSource:
    """A file of the numbers from 0 on, in float32."""
    store.put(key, torch.arange(elements, dtype=torch.float32).numpy().tobytes())
    return RecordedSource(store, key, 4 * elements)


def tensor_of(name: str, *pieces: StoragePiece) -> MasterTensor:
    return MasterTensor(
        name=name, shape=(sum(piece.count for piece in pieces),), dtype=torch.float32, pieces=tuple(pieces)
    )


def piece_of(source: Any, first: int, count: int) -> StoragePiece:
    return StoragePiece(source=source, start=4 * first, count=count, dtype=torch.float32)


def covered(ranges: Sequence[Range]) -> set[int]:
    return {byte for start, end in ranges for byte in range(start, end)}


@pytest.mark.parametrize("seed", range(20))
def test_every_wanted_byte_is_fetched_once_and_no_other(local_store: LocalStore, seed: int) -> None:
    """Tensors of pieces from three files, with gaps, shared bytes and pieces of many windows, in the files' order."""
    draw = random.Random(seed)
    sources = [stored(local_store, f"part-{number}", 400) for number in range(3)]
    starts, tensors = [0, 0, 0], []
    for number in range(12):
        pieces = []
        for place, source in enumerate(sources):
            first = starts[place] + draw.choice([0, 0, 1, 20])
            count = draw.choice([0, 1, 5, 16, 40])
            if first + count <= 400:
                pieces.append(piece_of(source, first, count))
                shared = count <= 5 and draw.random() < 0.3  # few bytes, of windows that are kept
                starts[place] = first + (0 if shared else count)
        tensors.append(tensor_of(f"tensor-{number}", *pieces))
    wanted = [
        (source, covered([(p.start, p.start + 4 * p.count) for t in tensors for p in t.pieces if p.source is source]))
        for source in sources
    ]
    with reading_ahead(tensors) as ahead:
        for tensor, found in zip(tensors, ahead, strict=True):
            assert (found.name, found.shape) == (tensor.name, tensor.shape)
            values = [number for p in tensor.pieces for number in range(p.start // 4, p.start // 4 + p.count)]
            assert found.read(0, found.numel).tolist() == values
    for source, needed in wanted:
        assert covered(source.requests) == needed
        assert sum(end - start for start, end in source.requests) == len(needed)
        assert all(0 < end - start <= WINDOW for start, end in source.requests)


def test_the_next_range_is_fetched_while_the_current_one_is_read(local_store: LocalStore) -> None:
    source = stored(local_store, "part", 160)
    with reading_ahead([tensor_of("whole", piece_of(source, 0, 160))]) as (tensor,):
        assert tensor.read(0, 1).tolist() == [0.0]
    assert sorted(source.requests) == [(0, WINDOW), (WINDOW, 2 * WINDOW)]


def test_an_object_that_ends_too_early_is_named(local_store: LocalStore) -> None:
    source = stored(local_store, "part", 40)
    with (
        reading_ahead([tensor_of("whole", piece_of(source, 0, 50))]) as (tensor,),
        pytest.raises(ConversionError, match=r"part has 160 bytes, but 192 are needed"),
    ):
        tensor.read(0, 50)


def test_the_range_before_the_current_one_is_kept(local_store: LocalStore) -> None:
    """Threads overtake one another, so a tensor of the range before may be read last."""
    source = stored(local_store, "part", 18)
    whole, over_the_end = piece_of(source, 0, 18), piece_of(source, 14, 4)
    with reading_ahead([tensor_of("whole", whole), tensor_of("shared", over_the_end)]) as (first, second):
        assert first.read(0, 18).tolist() == list(range(18))
        assert second.read(0, 4).tolist() == [14, 15, 16, 17]
    assert sorted(source.requests) == [(0, WINDOW), (WINDOW, 72)]
