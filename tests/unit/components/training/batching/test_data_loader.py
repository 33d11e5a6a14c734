import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from components.training.batching.data_loader import (
    Buffer,
    DataLoader,
    SampleProcessor,
    StepBatch,
    pinned,
    size_of,
    tensors_of,
)
from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan, StepPlan
from mantis.dataset.mixture_reader import MixtureReader, TrainingSample
from mantis.models.packed_batch import PackedBatch
from mantis.models.registry import family
from tests.fixtures.training import MakeRun
from tests.helpers.waiting import HANG_SECONDS, until


def test_a_buffer_holds_so_many_bytes_but_always_one_item() -> None:
    buffer = Buffer(items=3, size=100)
    assert buffer.put(None, size=1000)
    blocked = threading.Thread(target=buffer.put, args=(None,), kwargs={"size": 1}, daemon=True)
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()
    assert buffer.get() is None
    blocked.join(HANG_SECONDS)
    assert not blocked.is_alive()
    assert all(buffer.put(None, size=40) for _ in range(2))
    buffer.close()
    assert not buffer.put(None, size=1)


def fed(
    make_run: MakeRun, *, batch_size: int, epochs: int = 1, max_steps: int | None = None
) -> tuple[MixtureReader, SampleProcessor, SamplePlan]:
    """The mixture of a run, what prepares its samples, and a plan of its steps."""
    run, mixture = make_run("feed")
    reader = MixtureReader(run.store, mixture)
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=0,
        batch_size=batch_size,
        epochs=epochs,
        max_steps=max_steps,
        budgets=Budgets(tokens=300, patches=1000),
        cost=CostModel(quadratic=0.0, patch=1.0),
    )
    processor = family(run.recipe.model.family).processor(reader.tokenizer(), run.recipe.model)
    return reader, SampleProcessor(reader, processor), plan


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing_of_what_is_fed(make_run: MakeRun, threads: int) -> None:
    reader, preparer, plan = fed(make_run, batch_size=16)
    with DataLoader(preparer, plan, start=0, rank=1, world_size=2, threads=threads) as feed:
        works = list(feed)
    assert [work.step for work in works] == list(range(plan.steps))
    for work in works:
        parts = plan.step(work.step, world_size=2).ranks[1]
        assert len(work.batches) == len(parts)
        for batch, part in zip(work.batches, parts, strict=True):
            lengths = batch.cu_seqlens.diff().tolist()
            assert lengths == np.asarray(reader.tokens[part]).tolist()
        assert size_of(work) > 0


def test_a_feed_that_is_left_early_ends_its_threads(make_run: MakeRun) -> None:
    _, preparer, plan = fed(make_run, batch_size=2, epochs=20)
    with DataLoader(preparer, plan, start=0, rank=0, world_size=1, threads=2) as feed:
        next(iter(feed))
    names = ("feed", "read", "prepare")
    until("no thread is left", lambda: not any(thread.name.startswith(names) for thread in threading.enumerate()))


def waits_for_room(buffer: Buffer, size: int, patch: pytest.MonkeyPatch) -> bool:
    """Whether an item of this size would wait. It is put without waiting, and all items are taken out."""
    rooms: list[bool] = []
    with patch.context() as inner:
        inner.setattr(buffer._changed, "wait_for", lambda has_room: rooms.append(has_room()))
        buffer.put(None, size=size)
    while buffer._held:
        buffer.get()
    return not rooms[0]


@pytest.mark.parametrize(
    ("held", "size", "waits"),
    [
        ([], 1000, False),
        ([1, 1], 1, False),
        ([1, 1, 1], 1, True),  # a fourth item
        ([60], 40, False),  # exactly full
        ([60], 41, True),
        ([60, 39], 2, True),
    ],
)
def test_what_a_buffer_has_room_for(held: list[int], size: int, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = Buffer(items=3, size=100)
    for each in held:
        assert buffer.put(None, size=each)
    assert waits_for_room(buffer, size, monkeypatch) == waits
    assert not waits_for_room(buffer, 1000, monkeypatch), "what was taken out makes room"


def test_a_closed_buffer_lets_go_of_who_waits() -> None:
    buffer = Buffer(items=1, size=1)
    answers: list[bool] = []
    assert buffer.put(None, size=1)
    waiting = threading.Thread(target=lambda: answers.append(buffer.put(None, size=1)), daemon=True)
    waiting.start()
    buffer.close()
    waiting.join(HANG_SECONDS)
    assert answers == [False]
    assert not buffer._held


def test_samples_are_read_in_groups_and_one_group_ahead(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.training.batching.data_loader.READ", 10)
    _, preparer, plan = fed(make_run, batch_size=4, max_steps=8)
    reads: list[list[int]] = []
    read = preparer.read

    def noted(positions: Sequence[int]) -> list[TrainingSample]:
        reads.append(list(positions))
        return read(positions)

    monkeypatch.setattr(preparer, "read", noted)
    with DataLoader(preparer, plan, start=1, rank=0, world_size=1) as feed:
        works = list(feed)
    trained = [int(at) for work in works for part in work.plan.ranks[0] for at in part]
    assert [at for group in reads for at in group] == trained
    assert [len(group) for group in reads] == [12, 12, 4]  # steps of 4 samples, at least 10 per read
    assert [work.samples.tolist() for work in works] == [plan.samples(step).tolist() for step in range(1, 8)]


def test_the_size_of_a_step_is_that_of_its_tensors() -> None:
    def batch(tokens: int) -> PackedBatch:
        rows = torch.zeros(1, tokens, dtype=torch.int64)
        return PackedBatch(
            input_ids=rows,
            position_ids=rows,
            cu_seqlens=torch.zeros(2, dtype=torch.int32),
            pixel_values=torch.zeros(1, 3, 2, 2),
            image_grid=torch.zeros(1, 2, dtype=torch.int64),
            targets=rows[0],
            target_positions=rows[0],
            target_samples=rows[0],
            weights=torch.ones(1),
        )

    plan = StepPlan(samples=np.zeros(1, dtype=np.int64), ranks=(), idle=0.0, imageless=0)
    fixed = 2 * 4 + 12 * 4 + 2 * 8 + 4
    work = StepBatch(step=0, batches=(batch(3), batch(5)), plan=plan)
    assert size_of(work) == 2 * fixed + 5 * 8 * (3 + 5)
    assert [len(each) for each in tensors_of([torch.zeros(2), (torch.zeros(3), "no tensor")])] == [2, 3]
    if not torch.cuda.is_available():
        assert pinned(work.batches[0]) is work.batches[0]
