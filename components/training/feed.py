"""One rank's micro-steps, prepared ahead by a thread, so that the step hardly waits."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from components.core.settings import ModelSettings
from components.models.batch import PackedBatch
from components.models.family import Family
from components.models.mixture import MixtureReader
from components.training.collate import Prepared, collate, prepare
from components.training.plan import Plan, Positions, StepPlan

AHEAD = 8  # steps; a step of the smallest models takes as long as a slow read
READ = 64  # samples per read of the store: one read of many rows costs little more than one of a few


@dataclass(frozen=True, kw_only=True)
class Work:
    """One optimizer step of one rank: its micro-steps, and of all ranks the samples' positions and the idle share."""

    step: int
    batches: tuple[PackedBatch, ...]
    samples: Positions
    idle: float


class Preparer:
    """Reads, encodes, preprocesses and packs the samples of an index."""

    def __init__(self, reader: MixtureReader, family: Family, settings: ModelSettings) -> None:
        self._reader, self._family, self._settings = reader, family, settings
        self._tokenizer = reader.tokenizer()
        self._no_pixels: Tensor = family.preprocess([], settings)

    def prepare(self, positions: Sequence[int]) -> list[Prepared]:
        """Samples ready to be packed, in the order of `positions`."""
        return [
            prepare(
                sample,
                family=self._family,
                tokenizer=self._tokenizer,
                settings=self._settings,
                tokens=int(self._reader.tokens[position]),
            )
            for position, sample in zip(positions, self._reader.take(positions), strict=True)
        ]

    def pack(self, samples: Sequence[Prepared]) -> PackedBatch:
        """One row of them."""
        return collate(samples, no_pixels=self._no_pixels)


class Feed:
    """Iterates over the `Work` of steps `start` to the plan's end; close it, or use it in a `with`."""

    def __init__(self, preparer: Preparer, plan: Plan, *, start: int, rank: int, world_size: int) -> None:
        self._preparer, self._plan = preparer, plan
        self._rank, self._world_size = rank, world_size
        self._queue: queue.Queue[Work | BaseException | None] = queue.Queue(AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(start,), name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Work]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop preparing; what was prepared is dropped."""
        self._closed.set()
        self._thread.join()

    def _fill(self, start: int) -> None:
        try:
            for group in self._groups(start):
                for work in self._prepare(group):
                    self._put(work)
                    if self._closed.is_set():
                        return
            self._put(None)
        except BaseException as error:  # raised where the steps are trained
            self._put(error)

    def _groups(self, start: int) -> Iterator[list[tuple[int, StepPlan]]]:
        """Consecutive steps, each with its number, in which this rank has about READ samples."""
        group: list[tuple[int, StepPlan]] = []
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

    def _prepare(self, group: list[tuple[int, StepPlan]]) -> Iterator[Work]:
        mine = [(step, planned, planned.ranks[self._rank]) for step, planned in group]
        positions = [int(position) for _, _, micro_steps in mine for part in micro_steps for position in part]
        samples = iter(self._preparer.prepare(positions))
        for step, planned, micro_steps in mine:
            batches = tuple(self._preparer.pack([next(samples) for _ in part]) for part in micro_steps)
            yield Work(step=step, batches=batches, samples=planned.samples, idle=planned.idle)

    def _put(self, item: Work | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
