import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from components.training.monitoring import watchdog
from components.training.monitoring.watchdog import Mark, Watchdog, late_error
from mantis.errors import TrainingError
from tests.helpers.fake_clock import FakeClock
from tests.helpers.waiting import HANG_SECONDS, until

SECONDS = 60.0


class Dogs(NamedTuple):
    """Two ranks' watchdogs on one store, and the errors that end their processes."""

    pair: list[Watchdog]
    errors: "queue.Queue[TrainingError]"
    clock: FakeClock

    def mark(self, rank: int, step: int, stage: str) -> None:
        """A rank enters a stage. This returns when the others can read it."""
        self.pair[rank].mark(step, stage)
        until("the watchdog shares its rank's place", lambda: self.pair[0]._read(rank) == self.pair[rank]._mark)


@pytest.fixture
def dogs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dogs]:
    """Two ranks' watchdogs on one store, and the errors with which they would end their processes."""
    clock = FakeClock()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.01)
    store = HashStore()
    errors: queue.Queue[TrainingError] = queue.Queue()
    pair = [Watchdog(store, rank=rank, world_size=2, seconds=SECONDS, end=errors.put) for rank in range(2)]
    yield Dogs(pair, errors, clock)
    for dog in pair:
        dog.close()


def test_the_rank_that_waits_names_the_one_that_does_not_answer(dogs: Dogs) -> None:
    for rank in (0, 1):
        dogs.mark(rank, 7, "micro-step 1 of 2")
    dogs.mark(0, 7, "update")
    dogs.clock.now += SECONDS + 1
    error = dogs.errors.get(timeout=HANG_SECONDS)
    assert error.problem == (
        "Rank 1 does not answer: last seen in step 7 (micro-step 1 of 2), others are in step 7 (update). "
        "Nothing has moved for 60 s."
    )
    assert "training.hang_timeout_seconds" in error.remedy


def test_nothing_is_late_while_it_moves_or_is_paused(dogs: Dogs) -> None:
    dogs.mark(1, 1, "data")
    dogs.pair[1].pause()
    for step in range(1, 11):
        dogs.mark(0, step, "data")
        dogs.clock.now += SECONDS - 1
    dogs.pair[0].pause()
    dogs.clock.now += 100 * SECONDS
    time.sleep(0.2)  # a dog that went on watching would have found both ranks late
    assert dogs.errors.empty()


def test_a_process_shows_that_it_lives_until_training_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is touched whatever the training waits for; none is left to grow old while the result is written."""
    monkeypatch.setenv("MANTIS_ALIVE", str(tmp_path / "alive"))
    dog = Watchdog(HashStore(), rank=3, world_size=4, seconds=600, end=lambda error: pytest.fail(str(error)))
    file = tmp_path / "alive" / "rank-3"
    times: set[int] = set()

    def touched() -> int:
        times.update({file.stat().st_mtime_ns} if file.exists() else ())
        return len(times)

    until("it is touched again and again", lambda: touched() == 3, pause=0.1)
    dog.close()
    assert not file.exists()


def test_where_all_ranks_wait_that_is_said() -> None:
    assert late_error([Mark(4, 2, "data")] * 3, seconds=600).problem.startswith("All 3 ranks wait in step 2 (data).")
