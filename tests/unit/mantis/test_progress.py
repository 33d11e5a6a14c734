"""Lines for logs: every ten seconds, and a last one of work that took a while."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from mantis.progress import Progress, clock_text, seconds_of, three_digits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Moves time by seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_the_last_line_is_said_once_however_short_the_training(
    clock: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    bar = Progress(label="training", total=30, unit="steps")
    for _ in range(30):
        clock(0.2)
        bar.advance(note="loss 0.5")
    bar.advance(0)
    (line,) = caplog.messages
    assert line == "training: 30 of 30 steps  5.0 steps/s  0:00 left  loss 0.5"


def test_work_of_a_moment_says_nothing_and_long_work_every_ten_seconds(
    clock: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    bar = Progress(label="rows", total=3, unit="rows")
    for _ in range(3):
        clock(0.1)
        bar.advance()
    assert caplog.messages == []
    bar = Progress(label="rows", total=40, unit="rows")
    for _ in range(25):
        clock(1.0)
        bar.advance()
    assert len(caplog.messages) == 2


def test_the_time_left_follows_the_last_minute_and_not_a_slow_start(clock: Callable[..., Any]) -> None:
    bar = Progress(label="training", total=1000, unit="steps")
    assert bar.seconds_left is None
    clock(300.0)
    bar.advance()
    assert bar.seconds_left == pytest.approx(999 * 300)
    for _ in range(99):
        clock(2.0)
        bar.advance()
    assert bar.seconds_left == pytest.approx(900 * 2)
    assert Progress(label="rows", total=None, unit="rows").seconds_left is None


def test_a_resumed_work_counts_its_own_steps_alone(clock: Callable[..., Any]) -> None:
    bar = Progress(label="training", total=1000, unit="steps", done=900)
    clock(10.0)
    bar.advance(10)
    assert bar.seconds_left == pytest.approx(90.0)


@pytest.mark.parametrize(("seconds", "text"), [(41.9, "0:41"), (1226, "20:26"), (50709, "14:05:09")])
def test_a_time_is_read_as_it_is_written(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
    assert seconds_of(text) == int(seconds)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0421, "0.0421"), (0.5, "0.500"), (1.09, "1.09"), (2.064, "2.06"), (99.97, "100"), (173.4, "173"),
     (12345.0, "12,300")],
)  # fmt: skip
def test_a_rate_has_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text
