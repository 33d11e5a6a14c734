from typing import Any

import pytest

from components.training.lr_schedule import learning_rate
from mantis.config.training_settings import ScheduleSettings


def rates(steps: int, **schedule: Any) -> list[float]:
    return [learning_rate(step, steps=steps, peak=2.0, schedule=ScheduleSettings(**schedule)) for step in range(steps)]


def test_cosine_warms_up_peaks_and_ends_near_zero() -> None:
    found = rates(100, kind="cosine", warmup_ratio=0.1)
    assert found[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert found[10] == max(found) == 2.0
    assert found[55] == pytest.approx(1.0)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert 0 < found[-1] < 0.01


def test_linear_is_flat_and_then_falls_to_zero() -> None:
    found = rates(100, kind="linear", warmup_ratio=0.05, flat_ratio=0.6)
    assert set(found[5:61]) == {2.0}
    assert found[80] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(2.0 / 40)


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert rates(10, kind="linear", warmup_ratio=0.0)[0] == 2.0


def test_one_step() -> None:
    assert rates(1, kind="cosine") == [2.0]


def test_linear_without_a_flat_part_falls_right_behind_the_warmup() -> None:
    """The default of `linear`: a flat part that would end before the warm-up ends with it."""
    found = rates(100, kind="linear", warmup_ratio=0.1)
    assert found[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert found[10] == max(found) == 2.0
    assert found[55] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(2.0 / 90)


def test_a_last_step_behind_the_flat_part_has_its_full_rate() -> None:
    assert rates(10, kind="linear", warmup_ratio=0.0, flat_ratio=0.9) == [2.0] * 10
    assert rates(10, kind="linear", warmup_ratio=0.0, flat_ratio=0.85)[-2:] == [2.0, 1.0]
    assert rates(3, kind="cosine", warmup_ratio=0.5)[-1] == 2.0
