"""Callbacks: what a new concern costs, and how the list passes figures and states on."""

import json
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch

from components.training.callbacks.callback import Callback
from components.training.callbacks.callback_list import CallbackList
from components.training.callbacks.metric_rows import MetricRows
from components.training.step import training_task
from mantis.tracking.mlflow_runs import find_tracked_run
from tests.fixtures.training import MakeRun, Torchrun
from tests.helpers.step_figures import FIGURES

STEPS, STOPPED = 12, 8  # the signal comes after step 7, and all ranks learn of it in step 8


def test_a_new_concern_is_one_callback_and_one_line(make_run: MakeRun, torchrun: Torchrun) -> None:
    run, mixture = make_run("callback", {"training.max_steps": str(STEPS), "training.log_every": "1"})
    done = torchrun("record_callbacks", 1, run.store.url, run.id)
    assert done.returncode == 0, done.stderr
    task = training_task(run, mixture)
    text = run.store.get(f"{task.address()}/metrics.jsonl")
    rows = [json.loads(line) for line in text.splitlines()]
    sums = list(accumulate(row["loss"] for row in rows))

    # Its metrics arrive in metrics.jsonl and in MLflow, also after the resume.
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss_sum"] for row in rows] == sums
    tracked = find_tracked_run(run)
    history = tracked.client.get_metric_history(tracked.id, "train/loss_sum")
    assert {metric.step: metric.value for metric in history} == dict(enumerate(sums, start=1))

    # Its hooks are called in order, and its state survives.
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"hook"')]
    expected = [
        ("on_start", 0, 0.0),
        *(("on_row", step, sums[step - 1]) for step in range(1, STOPPED + 1)),
        ("on_save", STOPPED, sums[STOPPED - 1]),
        ("on_stop", STOPPED, sums[STOPPED - 1]),
        ("on_start", STOPPED, sums[STOPPED - 1]),
        *(("on_row", step, sums[step - 1]) for step in range(STOPPED + 1, STEPS + 1)),
        ("on_save", STEPS, sums[-1]),
        ("on_end", STEPS, sums[-1]),
    ]
    assert [tuple(event.values()) for event in events] == expected
    # A thread stores a checkpoint, so its end may come before on_save or after it.
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"commit"')]
    assert [json.loads(line)["commit"] for line in lines] == [STOPPED, STEPS]


class Counter(Callback):
    """Counts steps, and returns the count at even ones."""

    name = "counter"

    def __init__(self) -> None:
        self.count = 0
        self.seen: list[Any] = []

    def after_step(self, finished: Any) -> Any:
        self.count += 1
        return {"count": self.count} if finished.step % 2 == 0 else {}

    def on_row(self, row: Any) -> None:
        self.seen.append((row["step"], row.get("count")))

    def state_dict(self) -> Any:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


class Silent(Callback):
    """Has no memory and no figures."""

    name = "silent"


def listed(counter: Counter) -> CallbackList:
    rows = MetricRows(every=5, steps=15, peak_flops=None, device=torch.device("cpu"))
    return CallbackList(rows, [Silent(), counter])


def test_a_row_has_the_learning_rate_of_each_part() -> None:
    rows = MetricRows(every=1, steps=2, peak_flops=None, device=torch.device("cpu"))
    same = rows.add(1, FIGURES)
    own = rows.add(2, replace(FIGURES, part_rates={"vision": 2e-6, "text": 1e-5}))
    assert same is not None
    assert own is not None
    assert {name: own[name] for name in own.keys() - same.keys()} == {
        "learning_rate_vision": 2e-6,
        "learning_rate_text": 1e-5,
    }


def test_figures_of_a_step_without_a_row_wait_for_the_next_one_also_across_a_resume() -> None:
    before = Counter()
    callbacks = listed(before)
    for step in range(1, 5):
        callbacks.after_step(step, FIGURES)
    assert before.seen == [(1, None)]
    states = json.loads(json.dumps(callbacks.state_dict()))
    assert set(states) == {"metric_rows", "counter"}

    after = Counter()
    resumed = listed(after)
    resumed.load_state_dict(states | {"of_another_version": {"x": 1}})
    for step in range(5, 16):
        resumed.after_step(step, FIGURES)
    assert after.seen == [(5, 4), (10, 10), (15, 14)]


def test_a_callback_that_the_checkpoint_does_not_know_starts_fresh() -> None:
    counter = Counter()
    callbacks = listed(counter)
    callbacks.load_state_dict({"metric_rows": {"rows": [], "window": {}, "pending": {}}})
    callbacks.after_step(1, FIGURES)
    assert counter.count == 1


def test_two_callbacks_of_one_name_are_refused() -> None:
    callbacks = listed(Counter())
    with pytest.raises(ValueError, match="two callbacks are named 'counter'"):
        callbacks.add(Counter())
