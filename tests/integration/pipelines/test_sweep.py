"""Sweeps on this machine: one that is killed in its second arm, and searches that prune a trial, one as a pipeline."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mantis.runs.records import State, read_record, runs
from mantis.runs.trials import TrialState, read_trials
from mantis.store.local import LocalStore
from tests.fixtures.cli import Mantis
from tests.helpers.little_run import LITTLE

HELD_OUT = ("--set=data.holdout=8", "--set=training.evaluate_every=2")


def kill_when(given: tuple[str, ...], cwd: Path, environment: dict[str, str], reached: Callable[[], bool]) -> None:
    """Start the command, and kill it as soon as `reached` holds; its processes die with it."""
    command = [sys.executable, "-m", "pipelines.cli", *given]
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        try:
            while not reached():
                assert one.poll() is None, "it ended before it could be killed"
                time.sleep(0.1)
        finally:
            one.kill()


def in_its_second_training(store: LocalStore) -> bool:
    """Whether one arm has its report, and the training of another one has a checkpoint."""
    arms = [run for run in runs(store) if read_record(store, run, "train") is not None]
    reported = [run for run in arms if read_record(store, run, "report") is not None]
    running = [record for run in arms if run not in reported and (record := read_record(store, run, "train"))]
    return bool(reported) and any(
        list((store.root / "checkpoints" / record.fingerprint).glob("*/COMMIT")) for record in running
    )


def finished(store: LocalStore) -> dict[Path, bytes]:
    """All records of steps that are done, except those of the run's own checks, which every start repeats."""
    found = {path: path.read_bytes() for path in (store.root / "runs").glob("*/steps/*.json")}
    own = ("preflight",)
    return {path: data for path, data in found.items() if json.loads(data)["state"] == "done" and path.stem not in own}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_sweep_repeats_nothing_and_says_which_arm_is_best(
    mantis: Mantis, mantis_environment: dict[str, str], tmp_path: Path, store: LocalStore
) -> None:
    given = ("sweep", "demo", *LITTLE, "--over=training.learning_rate=2e-5,4e-3", f"--store={store.url}", "--json")
    kill_when(given, tmp_path, mantis_environment, lambda: in_its_second_training(store))
    before = finished(store)
    assert before

    done = mantis(*given, cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before
    compared = json.loads(done.stdout)
    first, second = compared["runs"]
    trained = [read_record(store, arm, "train") for arm in (first, second)]
    assert [(record.state, record.attempts) for record in trained if record] == [(State.DONE, 1), (State.DONE, 2)]
    assert trained[1] is not None
    assert float(trained[1].summary["seconds_resume"]) > 0  # it went on from its checkpoint

    assert compared["settings"]["training.learning_rate"] == ["2e-05", "0.004"]
    assert all(row["runs"][1]["difference"]["corrected_p"] is not None for row in compared["scores"])
    pair = compared["ranking"]["pairs"][0]
    assert {pair["higher"], pair["lower"]} == {first, second}
    assert pair["low"] <= pair["difference"] <= pair["high"]
    page = (tmp_path / "store" / "reports" / compared["sweep"] / "report.html").read_text()
    assert "has the highest accuracy of 2 runs" in page
    assert compared["verdicts"][0].startswith(f"{pair['higher']} (training.learning_rate")

    whole = finished(store)
    again = mantis(*given, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["ranking"] == compared["ranking"]
    trains = [path for path in whole if path.stem in ("train", "convert", "assemble") or "prepare" in path.stem]
    assert {path: path.read_bytes() for path in trains} == {path: whole[path] for path in trains}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_search_goes_on_and_prunes_a_hopeless_trial(
    mantis: Mantis, mantis_environment: dict[str, str], tmp_path: Path, store: LocalStore
) -> None:
    """The values of the trials follow from the seed. The third one, of a hopeless learning rate, is pruned."""
    over = "--over=training.learning_rate=1e-7..4e-3:log"
    given = ("sweep", "demo", *LITTLE, *HELD_OUT, over, "--trials=4", f"--store={store.url}", "--json", "--name=search")
    kill_when(given, tmp_path, mantis_environment, lambda: in_its_second_training(store))
    before, suggested = finished(store), [trial.changes for trial in read_trials(store, "search")]
    assert len(suggested) == 2

    done = mantis(*given, cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_bytes() for path in before} == before
    trials = read_trials(store, "search")
    assert [trial.changes for trial in trials][:2] == suggested
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert (len(pruned) + len(complete), len(pruned) > 0) == (4, True)
    for trial in pruned:
        record = read_record(store, trial.run, "train")
        assert record is not None
        assert record.reason.startswith(f"Stopped after step {trial.points[-1][0]} of ")
        assert read_record(store, trial.run, "convert") is None
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["runs"] == [trial.run for trial in complete]
    assert [each["state"] for each in found["trials"]] == [trial.state.value for trial in trials]
    assert all(trial.loss == trial.points[-1][1] for trial in complete)
    assert "pruned after step" in (tmp_path / "store/reports/search/report.html").read_text()


AS_PIPELINE = """
import json, sys
from kfp import local
from pipelines.execution.platform import Platform
from pipelines.kubeflow.compile import PIPELINES

local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2], raise_on_error=True)
PIPELINES["sweep"](Platform(arms=1))(**json.loads(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_as_a_pipeline_prunes_a_hopeless_trial_and_compares_the_others(
    mantis_environment: dict[str, str], tmp_path: Path, store: LocalStore
) -> None:
    """One trial at a time, so its values are those of the search above. Run again, it trains nothing."""
    asked = {
        "recipe": "demo",
        "overrides": " ".join(each.removeprefix("--set=") for each in (*LITTLE, *HELD_OUT)),
        "over": "training.learning_rate=1e-7..4e-3:log",
        "trials": "4",
        "mantis_run": "search",
        "store_url": store.url,
    }
    command = [sys.executable, "-c", AS_PIPELINE, json.dumps(asked), str(tmp_path / "kfp")]
    subprocess.run(command, cwd=tmp_path, env=mantis_environment, check=True, timeout=3000)
    trials = read_trials(store, "search")
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert (len(pruned) + len(complete), len(pruned) > 0) == (4, True)
    for trial in pruned:
        assert read_record(store, trial.run, "convert") is None
    for trial in complete:
        assert trial.loss == trial.points[-1][1]
        assert read_record(store, trial.run, "report") is not None
    page = (tmp_path / "store/reports/search/report.html").read_text()
    assert "has the highest accuracy of" in page
    assert "pruned after step" in page
    summary = json.loads(store.get("runs/search/summary.json"))
    assert summary["status"] == "FINISHED"

    before = finished(store)
    again = subprocess.run(command, cwd=tmp_path, env=mantis_environment, check=False, timeout=3000)
    assert again.returncode == 0
    trains = [path for path in before if path.stem == "train"]
    assert len(trains) == len(complete)
    records = [read_record(store, trial.run, "train") for trial in trials]
    assert [record.state for record in records if record and record.key] == [State.REUSED] * len(complete)
    assert read_trials(store, "search") == trials
