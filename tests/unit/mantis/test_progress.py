"""Lines for logs: every ten seconds, and a last one of work that took a while."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from mantis.progress import Progress


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
