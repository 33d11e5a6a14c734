import json
import math
from typing import Any

import pytest

from components.training.callbacks.loss_spikes import LOSSES_NEEDED, SKIPPED, LossSpikeGuard, record_skipped
from mantis.errors import TrainingError
from mantis.store.local import LocalStore


def warmed(**options: Any) -> LossSpikeGuard:
    guard = LossSpikeGuard(**({"spike": 3.0, "skips": 1} | options))
    for _ in range(LOSSES_NEEDED):
        guard.accept(2.0)
    return guard


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_bad_from_the_first_step_on(loss: float) -> None:
    assert LossSpikeGuard(spike=None, skips=0).problem(loss) == f"is {loss}"


def test_a_spike_is_measured_by_the_median_of_the_steps_before() -> None:
    guard = warmed()
    assert guard.problem(6.0) == ""
    assert guard.problem(6.1) == "is 6.1, 3.0 times the usual 2"
    assert warmed(spike=None).problem(1e9) == ""
    assert LossSpikeGuard(spike=3.0, skips=0, recent=warmed().recent.__class__([1.0])).problem(100.0) == ""


def test_so_many_are_left_out_and_the_next_one_names_its_samples() -> None:
    guard = warmed()
    guard.skip(17, "the loss is nan", ["a"])
    with pytest.raises(TrainingError) as raised:
        guard.skip(20, "the loss is nan", [f"id-{index}" for index in range(40)])
    text = str(raised.value)
    assert text.startswith("In step 20 the loss is nan; its samples: id-0, ")
    assert "id-31 and 8 more. 1 steps were skipped before." in text
    assert "training.max_skipped_steps" in text


def test_a_resumed_guard_judges_the_same() -> None:
    guard = warmed()
    guard.accept(1.0)
    guard.skip(17, "x", [])
    again = LossSpikeGuard(spike=3.0, skips=1)
    again.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert again.recent == guard.recent
    assert [again.problem(loss) for loss in (5.0, 7.0)] == [guard.problem(loss) for loss in (5.0, 7.0)]
    with pytest.raises(TrainingError):
        again.skip(18, "x", [])


def test_the_ledger_has_a_row_for_each_skipped_step_once(local_store: LocalStore) -> None:
    for step in (9, 4, 9):  # a killed attempt repeats what came after its checkpoint
        record_skipped(local_store, "checkpoints/x", {"step": step, "reason": "the loss is nan", "samples": ["a"]})
    rows = [json.loads(line) for line in local_store.get(f"checkpoints/x/{SKIPPED}").splitlines()]
    assert [row["step"] for row in rows] == [4, 9]
