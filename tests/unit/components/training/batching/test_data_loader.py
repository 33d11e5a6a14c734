import threading
import time

import numpy as np
import pytest

from components.training.batching.data_loader import Buffer, DataLoader, SampleProcessor, size_of
from components.training.batching.sample_plan import Budgets, CostModel, Lengths, SamplePlan
from mantis.dataset.mixture_reader import MixtureReader
from mantis.models.registry import family
from tests.fixtures.training import MakeRun


def test_a_buffer_holds_so_many_bytes_but_always_one_item() -> None:
    buffer = Buffer(items=3, size=100)
    assert buffer.put(None, size=1000)
    blocked = threading.Thread(target=buffer.put, args=(None,), kwargs={"size": 1}, daemon=True)
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()
    assert buffer.get() is None
    blocked.join(5)
    assert not blocked.is_alive()
    assert all(buffer.put(None, size=40) for _ in range(2))
    buffer.close()
    assert not buffer.put(None, size=1)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing_of_what_is_fed(make_run: MakeRun, threads: int) -> None:
    run, mixture = make_run("feed")
    reader = MixtureReader(run.store, mixture)
    preparer = SampleProcessor(reader, family(run.recipe.model.family).processor(reader.tokenizer(), run.recipe.model))
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=0,
        batch_size=16,
        epochs=1,
        max_steps=None,
        budgets=Budgets(tokens=300, patches=1000),
        cost=CostModel(quadratic=0.0, patch=1.0),
    )
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
    run, mixture = make_run("feed")
    reader = MixtureReader(run.store, mixture)
    preparer = SampleProcessor(reader, family(run.recipe.model.family).processor(reader.tokenizer(), run.recipe.model))
    plan = SamplePlan(
        Lengths(tokens=reader.tokens.astype("int64"), patches=reader.patches.astype("int64")),
        seed=0,
        batch_size=2,
        epochs=20,
        max_steps=None,
        budgets=Budgets(tokens=300, patches=1000),
        cost=CostModel(quadratic=0.0, patch=1.0),
    )
    with DataLoader(preparer, plan, start=0, rank=0, world_size=1, threads=2) as feed:
        next(iter(feed))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(
        thread.name.startswith(("feed", "read", "prepare")) for thread in threading.enumerate()
    ):
        time.sleep(0.01)
    assert not any(thread.name.startswith(("feed", "read", "prepare")) for thread in threading.enumerate())
