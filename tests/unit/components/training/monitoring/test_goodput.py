import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.training.callbacks.goodput_timer import GoodputTimer
from components.training.callbacks.metric_rows import MetricRows
from components.training.checkpointing.training_summary import with_launching
from components.training.monitoring.goodput import (
    LAUNCHED_AT,
    QUEUED_AT,
    Cause,
    GoodputClock,
    Heartbeat,
    beginning,
    goodput,
    seconds_so_far,
)
from components.training.monitoring.step_metrics import StepFigures
from mantis.store.local import LocalStore
from tests.helpers.fake_clock import FakeClock
from tests.helpers.step_figures import FIGURES

HOUR = 3600.0


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of the module, which only the test moves."""
    clock = FakeClock(100 * HOUR)
    monkeypatch.setattr("components.training.monitoring.goodput.time", clock)
    return clock


def test_causes_sum_to_the_time_since_the_start(moved: FakeClock) -> None:
    clock = GoodputClock(moved.now - 10.0)
    clock.add(Cause.START, 4.0)
    with clock.spend(Cause.STEP):
        moved.now += 2.0
    seconds = clock.seconds()
    assert sum(seconds.values()) == 12.0
    assert (seconds["step"], seconds["other"]) == (2.0, 6.0)


def test_entering_a_cause_ends_the_one_before(moved: FakeClock) -> None:
    clock = GoodputClock(moved.now - 5.0)
    for cause, length in ((Cause.DATA, 1.0), (Cause.STEP, 4.0), (Cause.OTHER, 2.0), (Cause.STEP, 8.0)):
        clock.enter(cause)
        moved.now += length
    seconds = clock.seconds()  # in the middle of a step
    assert (seconds["data"], seconds["step"], seconds["other"]) == (1.0, 12.0, 7.0)
    moved.now += 3.0
    with clock.spend(Cause.SAVE):
        moved.now += 5.0
    seconds = clock.seconds()
    assert (seconds["step"], seconds["save"], sum(seconds.values())) == (15.0, 5.0, 28.0)


def test_time_in_a_queue_is_told_from_the_start(moved: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUEUED_AT, str(moved.now - 100))
    monkeypatch.setenv(LAUNCHED_AT, str(moved.now - 4))
    assert beginning() == (moved.now - 100, 96.0)
    monkeypatch.delenv(QUEUED_AT)
    assert beginning() == (moved.now - 4, 0.0)
    monkeypatch.delenv(LAUNCHED_AT)
    assert beginning() == (moved.now, 0.0)


def test_steps_that_were_left_out_do_not_enter_the_loss() -> None:
    kept = recorder(every=2, steps=4)
    bad = replace(figures(math.nan), taken=False)
    assert kept.add(1, bad) is None
    assert kept.add(2, figures(3.0))["loss"] == 3.0
    assert [kept.add(step, bad) for step in (3, 4)] == [None, None]


def test_what_a_killed_attempt_lost_is_rework(moved: FakeClock) -> None:
    clock = GoodputClock(moved.now)
    clock.inherit({"start": 3.0, "step": 7.0, "rework": 1.0}, ran=13.5, queued=0.0)
    seconds = clock.seconds()
    assert (seconds["start"], seconds["step"]) == (3.0, 7.0)
    assert seconds["rework"] == pytest.approx(3.5)
    assert goodput(seconds) == pytest.approx(7 / 13.5)


def test_heartbeat_tells_the_next_attempt_and_leaves_nothing_at_the_end(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = Heartbeat(store, "checkpoints/x")
    assert seconds_so_far(store, "checkpoints/x") == 0.0
    first.beat({"queue": 0.5, "step": 12.0})
    first.beat({"queue": 0.5, "step": 12.5})  # too soon after the other
    first._pool.shutdown()
    assert seconds_so_far(store, "checkpoints/x") == 12.5
    Heartbeat(store, "checkpoints/x").close()
    assert list(store.list("checkpoints")) == []


def figures(loss: float) -> StepFigures:
    return replace(FIGURES, loss=loss)


def recorder(**kept: Any) -> MetricRows:
    given: dict[str, Any] = {"every": 5, "steps": 12, "peak_flops": 2e10, "device": torch.device("cpu")}
    return MetricRows(**given | kept)


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that do not depend on the moment."""
    return [{name: value for name, value in row.items() if name not in ("time", "memory_gb")} for row in rows]


def test_rows_cover_every_step_once_also_across_a_resume() -> None:
    whole = recorder()
    for step in range(1, 13):
        whole.add(step, figures(float(step)))
    assert [row["step"] for row in whole.rows] == [1, 5, 10, 12]
    assert [row["loss"] for row in whole.rows] == [1.0, 3.5, 8.0, 11.5]
    assert sum(row["samples"] for row in whole.rows) == 48
    assert whole.rows[1]["samples_per_second"] == pytest.approx(8.0)

    before = recorder()
    for step in range(1, 8):
        before.add(step, figures(float(step)))
    after = recorder()
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for step in range(8, 13):
        after.add(step, figures(float(step)))
    assert lasting(after.rows) == lasting(whole.rows)


def test_a_row_says_what_the_steps_were_worth() -> None:
    row = recorder().add(1, figures(1.0))
    assert row["mfu"] == pytest.approx(6e9 / 0.5 / 2e10)
    assert row["data_share"] == pytest.approx(0.2)
    assert (row["token_waste"], row["patch_waste"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert 0 < row["memory_gb"] < 100
    unknown = MetricRows(every=1, steps=1, peak_flops=None, device=torch.device("cpu"))
    assert "mfu" not in unknown.add(1, figures(1.0))


def test_what_passed_around_the_ranks_is_accounted_for() -> None:
    summary: dict[str, Any] = {"steps": 3, "seconds_step": 8.0, "seconds_other": 1.0, "goodput": 8 / 9}
    whole = with_launching(summary, before=4.0, wall=6.0)
    assert whole == {"steps": 3, "seconds_step": 8.0, "seconds_other": 2.0, "goodput": 0.8}
    # Whoever follows a job that has run for longer knows less than the ranks.
    assert with_launching(summary, before=0.0, wall=0.5)["seconds_other"] == 1.0


def attempt(
    patch: pytest.MonkeyPatch, moved: FakeClock, store: LocalStore, *, hours: float, saved: dict[str, float]
) -> tuple[Heartbeat, GoodputClock]:
    """A rank's accounting as the loop begins it, in a pod that was started `hours` ago."""
    patch.setenv(LAUNCHED_AT, str(moved.now - HOUR * hours))
    heartbeat = Heartbeat(store, "checkpoints/x")
    began, queued = heartbeat.queued_once(*beginning())
    clock = GoodputClock(began)
    clock.add(Cause.QUEUE, queued)
    clock.inherit(saved, ran=heartbeat.last.seconds, queued=heartbeat.last.queued)
    return heartbeat, clock


def beaten(heartbeat: Heartbeat, clock: GoodputClock) -> dict[str, float]:
    heartbeat.beat(clock.seconds())
    heartbeat._pool.shutdown()
    return clock.seconds()


def test_devices_are_counted_by_attempt_and_not_in_the_queue(moved: FakeClock) -> None:
    loop: Any = None
    first = GoodputTimer(GoodputClock(moved.now - 110.0), None, devices=8)
    first.clock.add(Cause.QUEUE, 100.0)
    first.clock.add(Cause.STEP, 10.0)
    state = json.loads(json.dumps(first.state_dict()))
    assert state["device_seconds"] == 80.0
    second = GoodputTimer(GoodputClock(moved.now - 10.0), None, devices=2)
    second.load_state_dict(state)
    second.on_start(loop)
    assert second.device_seconds() == 100.0
    older = GoodputTimer(GoodputClock(moved.now), None, devices=2)
    older.load_state_dict({"seconds": {"queue": 5.0, "step": 10.0}})
    older.on_start(loop)
    assert older.device_seconds() == 20.0


def test_two_attempts_of_a_job_sum_to_the_wall_time_and_queue_once(
    tmp_path: Path, moved: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an hour in the queue, five until a rank is lost, a quarter until the new ranks run, an hour to the end."""
    store = LocalStore(tmp_path)
    monkeypatch.setenv(QUEUED_AT, f"{moved.now:.0f}")
    moved.now += 5.5 * HOUR
    first, clock = attempt(monkeypatch, moved, store, hours=5.0, saved={})
    clock.add(Cause.STEP, 4.0 * HOUR)
    saved = {**clock.seconds(), "other": 0.0}  # at the last checkpoint
    beaten(first, clock)
    moved.now += 1.25 * HOUR
    second, clock = attempt(monkeypatch, moved, store, hours=1.0, saved=saved)
    seconds = beaten(second, clock)
    assert seconds["queue"] == pytest.approx(0.5 * HOUR, abs=2)
    assert seconds["rework"] == pytest.approx(1.0 * HOUR, abs=2)
    assert sum(seconds.values()) == pytest.approx(6.5 * HOUR, abs=2)
    summary: dict[str, Any] = {f"seconds_{cause}": value for cause, value in seconds.items()}
    whole = with_launching(summary, before=0.0, wall=6.75 * HOUR)
    assert sum(whole[name] for name in summary) == pytest.approx(6.75 * HOUR, abs=2)  # type: ignore[misc]
    assert whole["goodput"] == pytest.approx(4 / 6.75, abs=0.001)


def test_the_queue_stays_one_where_a_rank_is_lost_before_the_first_checkpoint(
    tmp_path: Path, moved: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.setenv(QUEUED_AT, f"{moved.now:.0f}")
    moved.now += 24.5 * HOUR
    beaten(*attempt(monkeypatch, moved, store, hours=0.5, saved={}))
    moved.now += 0.5 * HOUR
    seconds = beaten(*attempt(monkeypatch, moved, store, hours=0.5, saved={}))
    assert seconds["queue"] == pytest.approx(24 * HOUR, abs=2)
    assert seconds["rework"] == pytest.approx(0.5 * HOUR, abs=2)
    assert sum(seconds.values()) == pytest.approx(25 * HOUR, abs=2)


def test_a_new_launch_queues_again_and_what_was_before_it_counts_once(
    tmp_path: Path, moved: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.setenv(QUEUED_AT, f"{moved.now - 24 * HOUR:.0f}")
    first = Heartbeat(store, "checkpoints/x")
    first.beat({"queue": 0.0, "step": 5.0 * HOUR})
    first._pool.shutdown()
    before = seconds_so_far(store, "checkpoints/x")
    monkeypatch.setenv(QUEUED_AT, f"{moved.now - 3 * HOUR:.0f}")
    seconds = beaten(*attempt(monkeypatch, moved, store, hours=1.0, saved={"step": 5.0 * HOUR}))
    assert seconds["queue"] == pytest.approx(2.0 * HOUR, abs=2)
    summary: dict[str, Any] = {f"seconds_{cause}": value for cause, value in seconds.items()}
    whole = with_launching(summary, before=before, wall=3.25 * HOUR)
    assert sum(whole[name] for name in summary) == pytest.approx(8.25 * HOUR, abs=2)  # type: ignore[misc]
