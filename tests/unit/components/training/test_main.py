import time
from contextlib import nullcontext
from typing import Any

import pytest

from components.training import __main__ as trainer_main
from components.training.__main__ import _train
from components.training.monitoring.signals import StoppedError
from components.training.step import training_task
from mantis.errors import ConfigError, TrainingError
from mantis.runs.garbage_collection import garbage
from mantis.runs.records import State, read_record
from mantis.runs.step_runner import Run, run_step
from mantis.tracking.mlflow_runs import Status
from tests.fixtures.training import MakeRun


def ranks_begin(run: Run) -> None:
    """As far as everything that can be refused has been."""
    with pytest.raises(ConfigError, match="nonsense"):
        _train(run, began=time.monotonic(), queued=0.0, profile_steps="nonsense")


def test_the_first_rank_of_a_job_that_a_person_applied_says_what_it_is_at(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, mixture = make_run("applied", {"training.learning_rate": "1.1e-3"})
    task = training_task(run, mixture)
    run.store.put(f"{task.address()}/step-00000008/rank-0", b"half")
    unnamed = {heap.key for heap in garbage(run.store)}
    assert task.address() in unnamed
    monkeypatch.setenv("RANK", "1")
    ranks_begin(run)
    assert read_record(run.store, run.id, "train") is None
    monkeypatch.setenv("RANK", "0")
    ranks_begin(run)
    record = read_record(run.store, run.id, "train")
    assert (record.state, record.fingerprint, record.attempts) == (State.STARTED, task.fingerprint(), 0)
    assert {heap.key for heap in garbage(run.store)} == unnamed - {task.address()}


def test_the_record_of_a_launcher_stays_as_it_is(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, mixture = make_run("launched", {"training.learning_rate": "1.2e-3"})
    monkeypatch.setenv("RANK", "0")
    seen = []

    def work(prefix: str) -> Any:
        seen.append(read_record(run.store, run.id, "train"))
        ranks_begin(run)
        seen.append(read_record(run.store, run.id, "train"))
        return {}

    run_step(run, training_task(run, mixture), work)
    assert seen[0] == seen[1]
    ranks_begin(run)  # of a second job, applied by a person who did not look
    assert read_record(run.store, run.id, "train").state is State.DONE


@pytest.mark.parametrize(
    ("error", "alone", "closed"),
    [
        (None, True, Status.FINISHED),
        (None, False, None),
        (TrainingError("no space"), True, Status.FAILED),
        (TrainingError("no space"), False, None),
        (StoppedError("SIGTERM"), True, Status.KILLED),
        (StoppedError("SIGTERM"), False, Status.KILLED),
    ],
)
def test_a_training_that_is_stopped_closes_its_run_although_a_launcher_follows_it(
    monkeypatch: pytest.MonkeyPatch, error: TrainingError | None, alone: bool, closed: Status | None
) -> None:
    """After a termination on KFP, no task may be left that closes the run."""
    ends: list[Status] = []
    monkeypatch.setattr(trainer_main, "end_tracked_run", lambda _, status: ends.append(status))
    run: Any = None
    with pytest.raises(TrainingError) if error else nullcontext(), trainer_main._closing(run, alone=alone):
        if error:
            raise error
    assert ends == ([closed] if closed else [])
