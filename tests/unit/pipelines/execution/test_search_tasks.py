"""A search as tasks of a pipeline: trials that ask at the same time, are pruned, or are asked again after a kill."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.data.step import datasets_of_arms
from mantis.errors import ConfigError, MantisError
from mantis.runs.arms import arms_of, changes_of, write_arms
from mantis.runs.records import State, StepRecord, write_record
from mantis.runs.step_runner import open_run
from mantis.runs.trials import SweepTrial, TrialState, read_trials, write_trial
from pipelines.execution import ablation_runs
from pipelines.execution.preflight import preflight
from pipelines.execution.sweeps import search_runs, search_tasks
from pipelines.execution.sweeps.search_runs import Search, compare_complete, plan_search
from pipelines.execution.sweeps.search_space import suggest
from pipelines.execution.sweeps.search_tasks import (
    TrialOrderError,
    ask_in_turn,
    preflight_search,
    prepare_asked,
    stored_search,
    train_trial,
)
from pipelines.execution.sweeps.sweep_end import close_sweep

RATES = {"training.learning_rate": ["1e-4..1e-3:log"]}
EVALUATED = {"data.generated_conversations": "100", "data.holdout": "16", "training.evaluate_every": "10"}
NOW = "2026-01-02T03:04:05+00:00"
MIXTURE: Any = None  # the stand-in for training reads none

ask_at_once = partial(ask_in_turn, sleep=lambda _: time.sleep(0.01))


def planned(folder: Path, over: Mapping[str, Any] = RATES, trials: int = 4) -> Search:
    """The search, as its tasks read it from the store."""
    search = plan_search("demo", EVALUATED, over, "mine", folder.as_uri(), trials=trials)
    return stored_search(preflight_search(search))


def known(search: Search) -> list[SweepTrial]:
    return read_trials(search.parent.store, search.parent.id)


def trained(search: Search, arm: str, loss: float) -> None:
    """Leave what the training of an arm leaves."""
    store = search.parent.store
    rows = f'{{"step": 10, "held_out_loss": {loss + 1}}}\n{{"step": 20, "held_out_loss": {loss}}}'
    store.put(f"checkpoints/{arm}/metrics.jsonl", rows.encode())
    summary = {"last_held_out_loss": loss}
    key = f"checkpoints/{arm}"
    write_record(
        store,
        arm,
        StepRecord(step="train", state=State.DONE, started=NOW, key=key, fingerprint="f", summary=summary),
    )


def test_trials_that_ask_at_the_same_time_have_different_values_in_any_order(tmp_path: Path) -> None:
    search = planned(tmp_path / "store")
    with ThreadPoolExecutor(4) as pool:
        arms = list(pool.map(lambda number: ask_at_once(search, number), (3, 1, 2, 0)))
    trials = known(search)
    assert sorted(arms) == sorted(trial.run for trial in trials)
    assert len({trial.changes["training.learning_rate"] for trial in trials}) == 4
    assert {trial.state for trial in trials} == {TrialState.STARTED}
    assert arms_of(search.parent.store, "mine") == [trial.run for trial in trials]
    for trial in trials:
        assert changes_of(search.parent.store, trial.run) == trial.changes
        assert open_run(trial.run, search.parent.store.url).parent == "mine"


def test_a_trial_keeps_its_values_if_its_task_is_killed(tmp_path: Path) -> None:
    search = planned(tmp_path / "store")
    first, second = ask_at_once(search, 0), ask_at_once(search, 1)
    trained(search, first, 0.5)
    search_runs.tell(open_run(first, search.parent.store.url), known(search)[0])
    before = known(search)
    assert [ask_at_once(search, 0), ask_at_once(search, 1)] == [first, second]
    assert known(search) == before


def test_of_two_trials_with_the_same_values_the_first_runs(tmp_path: Path) -> None:
    search = planned(tmp_path / "store", {"training.seed": ["7"]}, trials=3)
    arm = ask_at_once(search, 0)
    assert ask_at_once(search, 1) == ""
    trained(search, arm, 0.5)
    search_runs.tell(open_run(arm, search.parent.store.url), known(search)[0])
    assert ask_at_once(search, 2) == ""
    states = [trial.state for trial in known(search)]
    assert states == [TrialState.COMPLETE, TrialState.STARTED, TrialState.COMPLETE]
    with pytest.raises(ConfigError, match="The 3 trials of mine have 1 different runs"):
        compare_complete(search.parent)
    assert {trial.state for trial in known(search)} == {TrialState.COMPLETE}
    assert {trial.loss for trial in known(search)} == {0.5}


def test_a_trial_says_which_one_it_waits_for(tmp_path: Path) -> None:
    search = planned(tmp_path / "store")
    ask_at_once(search, 0)
    with pytest.raises(TrialOrderError, match="Trial 4 waited 0 s, but trial 2 has no values"):
        ask_at_once(search, 3, patience=0)


def test_a_trial_has_the_values_that_were_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others end while the recipe is checked. Then the sampler would suggest other values."""
    search = planned(tmp_path / "store", trials=7)
    for number in range(6):
        ask_at_once(search, number)

    def checked(recipe: str, overrides: Mapping[str, str], name: str, store_url: str) -> Any:
        for trial in known(search):
            write_trial(search.parent.store, "mine", trial.ended(TrialState.COMPLETE, [], 1.0 + trial.number))
        return preflight(recipe, overrides, name, store_url)

    monkeypatch.setattr(search_tasks, "preflight", checked)
    arm = ask_at_once(search, 6)
    assert open_run(arm, search.parent.store.url).parent == "mine"
    seventh = known(search)[6]
    assert (seventh.run, seventh.state) == (arm, TrialState.STARTED)
    again = suggest(search.over, known(search)[:6], number=6, seed=search.parent.recipe.seed)
    assert again != seventh.values


def test_a_trial_is_told_when_it_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = planned(tmp_path / "store")
    arm = open_run(ask_at_once(search, 0), search.parent.store.url)

    def train(run: Any, mixture: Any) -> str:
        trained(search, run.id, 0.25)
        return "made"

    monkeypatch.setattr(search_tasks, "train", train)
    made: Any = train_trial(arm, MIXTURE)
    assert made == "made"
    (trial,) = known(search)
    assert (trial.state, trial.loss, trial.points) == (TrialState.COMPLETE, 0.25, ((10, 1.25), (20, 0.25)))
    again: Any = train_trial(arm, MIXTURE)
    assert again == "made"
    assert known(search) == [trial]


def test_a_pruned_trial_has_no_checkpoint_and_nothing_more_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = planned(tmp_path / "store")
    arm = open_run(ask_at_once(search, 0), search.parent.store.url)

    def train(run: Any, mixture: Any) -> None:
        write_trial(run.store, run.parent, known(search)[0].ended(TrialState.PRUNED, [(10, 9.0)]))
        raise MantisError("Stopped after step 10", remedy="")

    monkeypatch.setattr(search_tasks, "train", train)
    assert train_trial(arm, MIXTURE) is None
    assert known(search)[0].state is TrialState.PRUNED
    assert ask_at_once(search, 0) == ""


def test_a_training_that_fails_fails_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = planned(tmp_path / "store")
    arm = open_run(ask_at_once(search, 0), search.parent.store.url)

    def train(run: Any, mixture: Any) -> None:
        raise MantisError("no space left", remedy="")

    monkeypatch.setattr(search_tasks, "train", train)
    with pytest.raises(MantisError, match="no space left"):
        train_trial(arm, MIXTURE)
    assert known(search)[0].state is TrialState.STARTED


def test_the_sampler_counts_running_trials(tmp_path: Path) -> None:
    """After nine trials around 0.2, one that runs there sends the next one elsewhere."""
    over = {"training.learning_rate": ["0.0..1.0"]}
    rates = (0.05, 0.15, 0.18, 0.2, 0.22, 0.3, 0.5, 0.7, 0.9)
    ended = [
        SweepTrial(
            number=number,
            run=str(number),
            changes={},
            values={"training.learning_rate": rate},
            state=TrialState.STARTED,
        ).ended(TrialState.COMPLETE, [], abs(rate - 0.2))
        for number, rate in enumerate(rates)
    ]
    alone = suggest(over, ended, number=9, seed=0)
    running = SweepTrial(number=9, run="9", changes={}, values=alone, state=TrialState.STARTED)
    beside = [suggest(over, [*ended, running], number=10, seed=seed) for seed in range(3)]
    assert beside != [suggest(over, ended, number=10, seed=seed) for seed in range(3)]


def test_the_form_asks_for_a_grid_or_for_a_number_of_trials(tmp_path: Path) -> None:
    over, url = "training.learning_rate=2e-4,4e-4", (tmp_path / "store").as_uri()
    grid = prepare_asked("demo", EVALUATED, over, "grid", url, trials="")
    assert len(arms_of(grid.store, "grid")) == 2
    prepare_asked("demo", EVALUATED, over, "mine", url, trials=" 3 ")
    assert arms_of(grid.store, "mine") == []
    for wrong in ("0", "some", "-1", "2.5"):
        with pytest.raises(ConfigError, match="is no number of trials"):
            prepare_asked("demo", EVALUATED, over, "mine", url, trials=wrong)


def test_the_datasets_before_the_first_trial_are_those_of_the_recipe(tmp_path: Path) -> None:
    search = planned(tmp_path / "store")
    needed = datasets_of_arms(open_run("mine", search.parent.store.url))
    assert sorted(needed) == [("mine", "demo-multi"), ("mine", "demo-single")]


@pytest.mark.parametrize(("second", "ends"), [("Stopped after step 10", "FINISHED"), ("no space left", "FAILED")])
def test_a_search_on_a_cluster_closes_its_arms_and_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, ends: str
) -> None:
    """A pruned arm is no failed one. It is closed, too, although the search does not compare it."""
    ended = dict[str, str]()
    monkeypatch.setattr(ablation_runs, "record_end", lambda run, status: ended.update({run.id: status}))
    search = planned(tmp_path / "store")
    arms = [ask_at_once(search, number) for number in range(2)]
    done, failed = (
        StepRecord(step="report", state=State.DONE, started=NOW),
        StepRecord(step="train", state=State.FAILED, started=NOW, reason=second),
    )
    for run, record in ((arms[0], done), (arms[1], failed), ("mine", done)):
        write_record(search.parent.store, run, record)
    write_arms(search.parent.store, "mine", [arms[0]], {arms[0]: {}})  # as the comparison leaves it
    over = "training.learning_rate=1e-4..1e-3:log"
    close_sweep("demo", EVALUATED, over, "mine", (tmp_path / "store").as_uri(), trials="4")
    assert ended == {arms[0]: "FINISHED", arms[1]: "KILLED" if ends == "FINISHED" else "FAILED", "mine": ends}
