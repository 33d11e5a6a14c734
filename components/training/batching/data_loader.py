"""Threads prepare one rank's micro-steps ahead of time, so that a step hardly waits for data.

Threads, not processes: decoding, resizing and tokenizing release Python's lock, so threads keep several cores busy.
Nothing is copied between processes. `python -m benchmarks training.feed` measures the throughput beside a step.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from components.training.batching.collate import Prepared, collate, prepare
from components.training.batching.sample_plan import Positions, SamplePlan, StepPlan
from mantis.dataset.mixture_reader import MixtureReader, TrainingSample
from mantis.models.family import Processor
from mantis.models.packed_batch import PackedBatch

AHEAD_STEPS = 8  # a slow read takes several steps of the smallest models
AHEAD_BYTES = 2**30  # the images of 64 samples at 384 pixels take a quarter of it
READ = 64  # samples per read of the store: a read of many rows costs little more than a read of a few

Group = list[tuple[int, StepPlan]]  # consecutive steps: number from 0, plan


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """The data of one optimizer step on one rank.

    Args:
        step: number of the step, from 0.
        batches: this rank's micro-steps.
        plan: the step's plan for all ranks.
    """

    step: int
    batches: tuple[PackedBatch, ...]
    plan: StepPlan

    @property
    def samples(self) -> Positions:
        """Positions in the index of the step's samples, over all ranks, [samples]."""
        return self.plan.samples


class SampleProcessor:
    """Reads, encodes, preprocesses and packs the samples of an index."""

    def __init__(self, reader: MixtureReader, processor: Processor) -> None:
        self._reader, self.processor = reader, processor
        self._no_pixels = processor.preprocess([])

    def read(self, positions: Sequence[int]) -> list[TrainingSample]:
        """Read the samples at `positions` from the store."""
        return self._reader.take(positions)

    def prepare_one(self, position: int, sample: TrainingSample) -> Prepared:
        """Encode and preprocess one sample."""
        return prepare(sample, processor=self.processor, tokens=int(self._reader.tokens[position]))

    def prepare(self, positions: Sequence[int]) -> list[Prepared]:
        """Read, encode and preprocess samples, in the order of `positions`."""
        return list(map(self.prepare_one, positions, self.read(positions)))

    def pack(self, samples: Sequence[Prepared]) -> PackedBatch:
        """Pack the samples into one row."""
        return collate(samples, no_pixels=self._no_pixels)


class DataLoader:
    """Iterates over the `StepBatch` of step `start` (from 0) and all later ones. Use it in a `with`, or close it.

    One thread reads samples, `threads` threads prepare them, and one thread packs them.
    """

    def __init__(
        self, preparer: SampleProcessor, plan: SamplePlan, *, start: int, rank: int, world_size: int, threads: int = 1
    ) -> None:
        self._preparer, self._plan = preparer, plan
        self._rank, self._world_size = rank, world_size
        self._buffer = Buffer(items=AHEAD_STEPS, size=AHEAD_BYTES)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._preparing = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._thread = threading.Thread(target=self._fill, args=(start,), name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> "DataLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[StepBatch]:
        while (item := self._buffer.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the threads and drop the prepared steps."""
        self._buffer.close()
        self._thread.join()
        self._reading.shutdown(cancel_futures=True)
        self._preparing.shutdown(cancel_futures=True)

    def _fill(self, start: int) -> None:
        try:
            for work in self._works(start):
                if not self._buffer.put(work, size=size_of(work)):
                    return
            self._buffer.put(None, size=0)
        except BaseException as error:  # `__iter__` raises it in the main thread
            self._buffer.put(error, size=0)

    def _works(self, start: int) -> Iterator[StepBatch]:
        """The work of every step; another thread reads the samples of the next group meanwhile."""
        groups = self._groups(start)
        group = next(groups, None)
        samples = self._reading.submit(self._preparer.read, self._mine(group)) if group else None
        while group and samples:
            following = next(groups, None)
            ahead = self._reading.submit(self._preparer.read, self._mine(following)) if following else None
            yield from self._prepare(group, samples.result())
            group, samples = following, ahead

    def _groups(self, start: int) -> Iterator[Group]:
        """Consecutive steps in which this rank has about READ samples."""
        group: Group = []
        held = 0
        for step in range(start, self._plan.steps):
            planned = self._plan.step(step, world_size=self._world_size)
            group.append((step, planned))
            held += sum(len(micro_step) for micro_step in planned.ranks[self._rank])
            if held >= READ:
                yield group
                group, held = [], 0
        if group:
            yield group

    def _mine(self, group: Group) -> list[int]:
        """Positions of this rank's samples, in the order of its micro-steps."""
        return [int(at) for _, planned in group for part in planned.ranks[self._rank] for at in part]

    def _prepare(self, group: Group, read: list[TrainingSample]) -> Iterator[StepBatch]:
        samples = self._preparing.map(self._preparer.prepare_one, self._mine(group), read)
        for step, planned in group:
            parts = planned.ranks[self._rank]
            batches = tuple(pinned(self._preparer.pack([next(samples) for _ in part])) for part in parts)
            yield StepBatch(step=step, batches=batches, plan=planned)


class Buffer:
    """A queue between two threads. It holds at most `items` items and `size` bytes, but always room for one item."""

    def __init__(self, *, items: int, size: int) -> None:
        self._limit_items, self._limit_size = items, size
        self._held: deque[tuple[StepBatch | BaseException | None, int]] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: StepBatch | BaseException | None, *, size: int) -> bool:
        """Wait for room and add `item` of `size` bytes; returns False if the buffer is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._held or self._has_room(size))
            if self._closed:
                return False
            self._held.append((item, size))
            self._size += size
            self._changed.notify_all()
            return True

    def get(self) -> StepBatch | BaseException | None:
        """Wait for the oldest item and remove it."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._held))
            item, size = self._held.popleft()
            self._size -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Drop all items and let a waiting `put` return."""
        with self._changed:
            self._closed = True
            self._held.clear()
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return len(self._held) < self._limit_items and self._size + size <= self._limit_size


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of a field: the field itself, or the tensors of a (nested) list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


def size_of(work: StepBatch) -> int:
    """Bytes of a step's tensors."""
    values = (getattr(batch, field.name) for batch in work.batches for field in fields(batch))
    return sum(tensor.nbytes for value in values for tensor in tensors_of(value))


def pinned(batch: PackedBatch) -> PackedBatch:
    """The batch in page-locked memory, which a GPU copies while it computes; without a GPU, the batch itself."""
    if not torch.cuda.is_available():
        return batch

    def pin(value: Any) -> Any:
        return value.pin_memory() if isinstance(value, Tensor) else type(value)(map(pin, value))

    return replace(batch, **{field.name: pin(getattr(batch, field.name)) for field in fields(batch)})
