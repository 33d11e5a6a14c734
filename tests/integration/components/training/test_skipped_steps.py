"""A poisoned row, a signal to one rank alone, a damaged checkpoint and another layout, on two ranks."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from components.training.callbacks.loss_spikes import LOSSES_NEEDED, SKIPPED
from mantis.runs.step_runner import Run
from tests.fixtures.training import MakeRun, write_raw
from tests.helpers.paths import ROOT
from tests.helpers.train_with_faults import HURT, SIGNALLED, WHOLE
from tests.helpers.waiting import HANG_SECONDS

ROWS, BATCH, STEPS, SAVED_EVERY = 48, 3, 24, 10
POISONED = "colours-41"  # in step 18, the second of the second epoch
OVERRIDES = {
    "training.epochs": "2",
    "training.max_steps": str(STEPS),
    "training.global_batch_size": str(BATCH),
    "training.checkpoint_every": str(SAVED_EVERY),
    "training.keep_last": "9",
    "training.loss_spike_factor": "3.0",
    "training.max_skipped_steps": "2",
}


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """The records of both ranks by attempt."""

    run: Run
    ranks: list[dict[str, Any]]


@pytest.fixture(scope="module")
def attempts(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    source = tmp_path_factory.mktemp("poisoned")
    write_raw(source / "colours", ROWS)
    file = source / "colours" / "train.json"
    rows = [row | ({"weight": 1e4} if row["id"] == POISONED else {}) for row in json.loads(file.read_text())]
    file.write_text(json.dumps(rows))
    run, _ = make_run("skipped", OVERRIDES | {"data.source": str(source)})
    command = [sys.executable, "-m", "tests.helpers.train_with_faults", run.store.url, run.id]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr[-6000:]
    return Attempts(run=run, ranks=[json.loads(run.store.get(run.key(f"faults-{rank}.json"))) for rank in (0, 1)])


def test_a_step_with_a_spike_leaves_weights_and_moments_as_they_were(attempts: Attempts) -> None:
    expected = [
        row["step"]
        for row in attempts.ranks[0]["undisturbed"]["steps"]
        if POISONED in row["samples"] and row["step"] > LOSSES_NEEDED
    ]
    assert expected, "the poisoned row is seen after enough losses"
    for found in attempts.ranks:
        steps = found["undisturbed"]["steps"]
        assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
        assert [row["step"] for row in steps if not row["taken"]] == expected
        before = found["undisturbed"]["start"]
        for row in steps:
            assert (row["state"] == before) == (row["step"] in expected), row["step"]
            before = row["state"]
        assert found["undisturbed"]["counters"][::2] == [STEPS, len(expected)]
    ledger = [json.loads(line) for line in attempts.run.store.get(f"{WHOLE}/{SKIPPED}").splitlines()]
    assert [row["step"] for row in ledger] == expected
    assert all(POISONED in row["samples"] and "times the usual" in row["reason"] for row in ledger)


def test_all_ranks_stop_after_the_same_step_if_one_is_asked(attempts: Attempts) -> None:
    for found in attempts.ranks:
        said = found["stopped"]["stopped"]
        assert said.startswith(f"Training was asked to stop and did so after step {SIGNALLED + 1} ")
        assert len(found["stopped"]["steps"]) == SIGNALLED + 1


def test_a_damaged_checkpoint_is_deleted_and_the_resumed_training_skips_the_same_steps(attempts: Attempts) -> None:
    """The losses before the resume are those by which the spike is measured."""
    for found in attempts.ranks:
        resumed, whole = found["resumed"], found["undisturbed"]["steps"]
        assert resumed["resumed"] == SAVED_EVERY
        assert resumed["there"] == [SAVED_EVERY], "the damaged checkpoint would count as one of those that are kept"
        first = next(row["step"] for row in whole if not row["taken"])
        assert SAVED_EVERY < first <= SAVED_EVERY + LOSSES_NEEDED, "too few losses after the resume to find it"
        assert resumed["steps"] == whole[SAVED_EVERY:]
    skipped = [attempts.run.store.get(f"{prefix}/{SKIPPED}") for prefix in (WHOLE, HURT)]
    assert skipped[0] == skipped[1]


def test_another_layout_goes_on_with_the_counters_of_the_engine(attempts: Attempts) -> None:
    for found in attempts.ranks:
        assert found["other layout"] == found["undisturbed"]["counters"]
        assert found["other layout"][2] > 0
