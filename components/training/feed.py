"""One rank's micro-steps, prepared ahead by threads, so that the step hardly waits.

Threads, not processes: decoding, resizing and tokenizing run without Python's lock, so they keep several cores busy
(`python -m benchmarks training.feed` says how much they get done beside a step), and nothing has to be copied between
processes.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from components.core.settings import ModelSettings
from components.models.batch import PackedBatch
from components.models.family import Family
from components.models.mixture import MixtureReader, Sample
from components.training.collate import Prepared, collate, prepare
from components.training.plan import Plan, Positions, StepPlan

AHEAD_STEPS = 8  # a step of the smallest models takes as long as a slow read
AHEAD_BYTES = 2**30  # images of 64 samples at 384 pixels are a quarter of it
READ = 64  # samples per read of the store: one read of many rows costs little more than one of a few

Group = list[tuple[int, StepPlan]]  # consecutive steps, each with its number


@dataclass(frozen=True, kw_only=True)
class Work:
    """One optimizer step of one rank: its micro-steps, and of all ranks the plan."""

    step: int
    batches: tuple[PackedBatch, ...]
    plan: StepPlan

    @property
    def samples(self) -> Positions:
        """Positions of the step's samples, of all ranks."""
        return self.plan.samples


class Preparer:
    """Reads, encodes, preprocesses and packs the samples of an index."""

    def __init__(self, reader: MixtureReader, family: Family, settings: ModelSettings) -> None:
        self._reader, self._family, self._settings = reader, family, settings
        self._tokenizer = reader.tokenizer()
        self._no_pixels = family.preprocess([], settings)

    def read(self, positions: Sequence[int]) -> list[Sample]:
        """Samples as they lie in the store."""
        return self._reader.take(positions)

    def prepare_one(self, position: int, sample: Sample) -> Prepared:
        """A sample ready to be packed."""
        return prepare(
            sample,
            family=self._family,
            tokenizer=self._tokenizer,
            settings=self._settings,
            tokens=int(self._reader.tokens[position]),
        )

    def prepare(self, positions: Sequence[int]) -> list[Prepared]:
        """Samples ready to be packed, in the order of `positions`."""
        return list(map(self.prepare_one, positions, self.read(positions)))

    def pack(self, samples: Sequence[Prepared]) -> PackedBatch:
        """One row of them."""
        return collate(samples, no_pixels=self._no_pixels)


class Feed:
    """Iterates over the `Work` of steps `start` to the plan's end; close it, or use it in a `with`.

    One thread reads the next samples, `threads` prepare the ones before them, and one packs.
    """

    def __init__(
        self, preparer: Preparer, plan: Plan, *, start: int, rank: int, world_size: int, threads: int = 1
    ) -> None:
        self._preparer, self._plan = preparer, plan
        self._rank, self._world_size = rank, world_size
        self._buffer = Buffer(items=AHEAD_STEPS, size=AHEAD_BYTES)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._preparing = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._thread = threading.Thread(target=self._fill, args=(start,), name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Work]:
        while (item := self._buffer.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop preparing; what was prepared is dropped."""
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
        except BaseException as error:  # raised where the steps are trained
            self._buffer.put(error, size=0)

    def _works(self, start: int) -> Iterator[Work]:
        """Every step's, the samples of the next group being read meanwhile."""
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

    def _prepare(self, group: Group, read: list[Sample]) -> Iterator[Work]:
        samples = self._preparing.map(self._preparer.prepare_one, self._mine(group), read)
        for step, planned in group:
            parts = planned.ranks[self._rank]
            batches = tuple(pinned(self._preparer.pack([next(samples) for _ in part])) for part in parts)
            yield Work(step=step, batches=batches, plan=planned)


class Buffer:
    """Items from one thread to another: at most `items` of them and `size` bytes, but always one."""

    def __init__(self, *, items: int, size: int) -> None:
        self._limit_items, self._limit_size = items, size
        self._held: deque[tuple[Work | BaseException | None, int]] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Work | BaseException | None, *, size: int) -> bool:
        """Wait for room and add `item`; False when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._held or self._has_room(size))
            if self._closed:
                return False
            self._held.append((item, size))
            self._size += size
            self._changed.notify_all()
            return True

    def get(self) -> Work | BaseException | None:
        """The oldest item, waited for."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._held))
            item, size = self._held.popleft()
            self._size -= size
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Let whoever waits in `put` go."""
        with self._changed:
            self._closed = True
            self._held.clear()
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return len(self._held) < self._limit_items and self._size + size <= self._limit_size


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of a field: itself, or those of a list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


def size_of(work: Work) -> int:
    """Bytes of a step's tensors."""
    values = (getattr(batch, field.name) for batch in work.batches for field in fields(batch))
    return sum(tensor.nbytes for value in values for tensor in tensors_of(value))


def pinned(batch: PackedBatch) -> PackedBatch:
    """The batch in page-locked memory, from which a GPU copies while it computes; without a GPU, as it is."""
    if not torch.cuda.is_available():
        return batch

    def pin(value: Any) -> Any:
        return value.pin_memory() if isinstance(value, Tensor) else type(value)(map(pin, value))

    return replace(batch, **{field.name: pin(getattr(batch, field.name)) for field in fields(batch)})
