"""The progress of a running training: its last line, and progress.json, which it leaves for `mantis status`."""

import time
from typing import Any

import pytest
import torch

from components.training.callbacks.callback import FinishedStep
from components.training.callbacks.metric_rows import MetricRows
from components.training.callbacks.progress_bar import ProgressBar, ProgressFile
from mantis.artifacts.training_progress import TrainingProgress, read_progress
from mantis.errors import StoreError
from mantis.store.local import LocalStore

PREFIX = "checkpoints/x"
ROW = {"step": 4.0, "loss": 1.5, "samples_per_second": 2.064, "tokens_per_second": 1234.5}


class Loop:
    """Stands for the trainer, which has done no step yet."""

    class state:  # noqa: N801
        step = 0

    steps = 20

    def announce(self, *event: Any) -> None: ...


def watched(store: LocalStore, *rows: dict[str, float]) -> tuple[ProgressBar, ProgressFile]:
    metrics = MetricRows(every=5, steps=20, peak_flops=None, device=torch.device("cpu"), rows=list(rows))
    bar = ProgressBar(metrics)
    file = ProgressFile(store, PREFIX, metrics, bar)
    loop: Any = Loop()
    for callback in (bar, file):
        callback.on_start(loop)
    return bar, file


def take_steps(bar: ProgressBar, file: ProgressFile, last: int) -> None:
    figures: Any = None
    for step in range(1, last + 1):
        for callback in (bar, file):
            callback.after_step(FinishedStep(step=step, figures=figures, row=None))
    file._pool.shutdown()


def test_it_holds_step_losses_rates_and_goes_at_the_end(local_store: LocalStore) -> None:
    bar, file = watched(local_store, ROW | {"held_out_loss": 1.75}, ROW)
    take_steps(bar, file, 1)
    found = read_progress(local_store, PREFIX)
    assert found is not None
    assert (found.step, found.steps, found.loss, found.held_out_loss) == (1, 20, 1.5, 1.75)
    assert (found.samples_per_second, found.tokens_per_second) == (2.064, 1234.5)
    assert found.seconds_left is not None
    assert found.seconds_left > 0
    assert bar._note() == "loss 1.500  held-out 1.750  2.06 samples/s  1,230 tokens/s"
    loop: Any = Loop()
    file.on_end(loop)
    assert read_progress(local_store, PREFIX) is None


def test_a_training_of_a_moment_logs_its_last_line_with_the_loss(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    take_steps(*watched(local_store, ROW), 20)
    (line,) = caplog.messages
    assert line.startswith("training: 20 of 20 steps ")
    assert line.endswith("  loss 1.500  2.06 samples/s  1,230 tokens/s")


def test_it_is_written_every_few_seconds_and_not_every_step(local_store: LocalStore) -> None:
    bar, file = watched(local_store)
    take_steps(bar, file, 9)
    found = read_progress(local_store, PREFIX)
    assert found is not None
    assert (found.step, found.loss) == (1, None)


def test_a_loss_that_is_no_number_is_left_out(local_store: LocalStore) -> None:
    bar, file = watched(local_store, ROW | {"held_out_loss": float("nan")})
    take_steps(bar, file, 1)
    found = read_progress(local_store, PREFIX)
    assert found is not None
    assert found.held_out_loss is None


def test_a_store_that_is_away_costs_a_warning(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise StoreError("away", remedy="")

    monkeypatch.setattr(local_store, "put", refuse)
    take_steps(*watched(local_store, ROW), 1)
    assert "did not take the progress" in caplog.text


def test_the_progress_of_another_version_is_refused() -> None:
    with pytest.raises(Exception, match="schema"):
        TrainingProgress.model_validate({"schema_version": 9})
