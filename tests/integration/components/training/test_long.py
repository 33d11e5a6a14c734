"""Two thousand steps: memory stays flat, and every second has a cause."""

import json
import time

import pytest

from components.training.step import train
from tests.fixtures.training import MakeRun


@pytest.mark.slow
def test_memory_is_flat_and_the_goodput_table_sums_to_the_wall_time(make_run: MakeRun) -> None:
    changes = {"training.max_steps": "2000", "training.epochs": "60", "training.checkpoint_every": "250"}
    run, mixture = make_run("long", changes)
    began = time.monotonic()
    manifest = train(run, mixture)
    wall = time.monotonic() - began
    lines = run.store.get(f"{manifest.key}/metrics.jsonl").splitlines()
    memory = {row["step"]: row["memory_gb"] for row in map(json.loads, lines)}
    assert memory[2000] < 1.02 * memory[500], "the peak of the first rank's memory after a quarter of the steps"
    seconds = sum(value for name, value in manifest.summary.items() if name.startswith("seconds_"))  # type: ignore[misc]
    assert seconds == pytest.approx(wall, rel=0.01)
