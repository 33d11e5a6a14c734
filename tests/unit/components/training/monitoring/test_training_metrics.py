"""What Prometheus reads of a training."""

import logging
import math
import socket
import time
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from components.training.monitoring.goodput import Cause
from components.training.monitoring.training_metrics import TrainingMetrics, opened_metrics
from mantis.errors import ConfigError
from tests.helpers.loopback import free_port
from tests.helpers.step_figures import FIGURES
from tests.helpers.waiting import HANG_SECONDS


def value(metrics: TrainingMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"mantis_training_{name}", {"run": "a", **labels})


def test_a_resumed_training_shows_its_step_but_counts_only_this_attempt() -> None:
    metrics = TrainingMetrics("a")
    metrics.resumed(step=8, steps=20, checkpoint_every=4)
    for step in (9, 10):
        metrics.trained(step, FIGURES)
    metrics.trained(11, replace(FIGURES, taken=False))
    names = ("step", "steps", "samples_total", "tokens_total", "skipped_steps_total", "checkpoint_every_steps")
    assert [value(metrics, name) for name in names] == [11, 20, 12, 120, 1, 4]


def test_the_last_checkpoint_is_the_one_that_was_committed() -> None:
    before = time.time()
    metrics = TrainingMetrics("a")
    metrics.resumed(step=8, steps=20, checkpoint_every=4)
    assert (value(metrics, "checkpoint_step"), value(metrics, "checkpoints_total")) == (8, 0)
    begun = value(metrics, "checkpoint_timestamp_seconds")
    assert begun is not None
    assert begun >= before
    metrics.committed(12)
    assert (value(metrics, "checkpoint_step"), value(metrics, "checkpoints_total")) == (12, 1)
    committed = value(metrics, "checkpoint_timestamp_seconds")
    assert committed is not None
    assert committed >= begun


def test_an_unknown_figure_has_no_series_and_one_that_is_no_number_keeps_the_value_before() -> None:
    metrics = TrainingMetrics("a")
    assert (value(metrics, "loss"), value(metrics, "mfu_ratio")) == (None, None)
    metrics.logged({"loss": 1.5, "learning_rate": 0.1})
    metrics.logged({"loss": math.nan, "learning_rate": 0.2})
    assert [value(metrics, name) for name in ("loss", "learning_rate", "mfu_ratio")] == [1.5, 0.2, None]


def test_the_time_of_each_cause_and_goodput() -> None:
    metrics = TrainingMetrics("a")
    metrics.spent({Cause.STEP.value: 30.0, Cause.SAVE.value: 10.0})
    assert value(metrics, "goodput_ratio") == 0.75
    assert value(metrics, "cause_seconds", cause="save") == 10.0


def test_a_port_that_is_taken_costs_a_warning_and_no_training(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, caplog.at_level(logging.WARNING):
        TrainingMetrics("a").serve(taken.getsockname()[1])
    assert "Prometheus cannot read this training" in caplog.text


def test_it_is_read_at_the_port_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MANTIS_METRICS_PORT", str(port))
    metrics = opened_metrics("a")
    assert metrics is not None
    metrics.committed(12)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_SECONDS) as answer:
        text = answer.read().decode()
    assert 'mantis_training_checkpoint_step{run="a"} 12.0' in text


def test_without_a_port_there_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANTIS_METRICS_PORT", raising=False)
    assert opened_metrics("a") is None


@pytest.mark.parametrize("port", ["http", "-1", "65536", "0", "９"])
def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, port: Any) -> None:
    monkeypatch.setenv("MANTIS_METRICS_PORT", port)
    with pytest.raises(ConfigError, match="MANTIS_METRICS_PORT"):
        opened_metrics("a")
