"""A sweep that searches: its values, its trials, and a search that is started again. The arms are stand-ins."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mantis.errors import ConfigError, MantisError
from mantis.runs.arms import arms_of, changes_of, parent_of
from mantis.runs.records import State, StepRecord, write_record
from mantis.runs.step_runner import Run, open_run
from mantis.runs.trials import SweepTrial, TrialState, read_trials, write_trial
from pipelines.execution.preflight import keep_recipe
from pipelines.execution.resolve import resolve_run
from pipelines.execution.sweeps import search_runs, sweep_runs
from pipelines.execution.sweeps.search_runs import Search, plan_search, run_search
from pipelines.execution.sweeps.search_space import as_text, range_of, suggest

OVER = {"training.learning_rate": ["1e-4..1e-3:log"], "training.seed": ["1", "2", "3"]}
EVALUATED = {"data.holdout": "16", "training.evaluate_every": "10"}
QUIET = Console(quiet=True)


def planned(folder: Path, over: Mapping[str, Any] = OVER, *, name: str = "", trials: int = 6) -> Search:
    return plan_search("demo", EVALUATED, over, name, folder.as_uri(), trials=trials)


class Arms:
    """Stands for the runs of arms: the loss follows from the learning rate. `dies` in the given calls."""

    def __init__(self, *dies: int, prunes: tuple[int, ...] = ()) -> None:
        self.dies, self.prunes = set(dies), set(prunes)
        self.begun: list[str] = []

    def start(self, recipe: str, changes: Any, name: str, store_url: str, *_: Any, **__: Any) -> None:
        self.begun.append(name)
        number = len(self.begun)
        its_recipe = resolve_run(recipe, changes, "", store_url)[1]
        kept = open_run(parent_of_url(store_url, name), store_url)
        keep_recipe(kept.store, name, its_recipe)
        if number in self.dies:
            raise KeyboardInterrupt  # as abrupt as a kill: nothing is recorded
        run = open_run(name, store_url)
        if number in self.prunes:
            own = next(trial for trial in read_trials(run.store, run.parent) if trial.run == name)
            write_trial(run.store, run.parent, own.ended(TrialState.PRUNED, [(20, 9.0)]))
            raise MantisError("train failed: Stopped after step 20", remedy="")
        loss = abs(its_recipe.training.learning_rate - 3e-4) * 1e4
        rows = [{"step": 10, "held_out_loss": loss + 1}, {"step": 15}, {"step": 20, "held_out_loss": loss}]
        run.store.put(f"checkpoints/{name}/metrics.jsonl", "\n".join(map(json.dumps, rows)).encode())
        for step, summary in (("train", {"last_held_out_loss": loss}), ("report", {})):
            record = StepRecord(
                step=step,
                state=State.DONE,
                started="2026-01-02T03:04:05+00:00",
                seconds=30,
                key=f"checkpoints/{name}",
                fingerprint="f",
                summary=summary,
            )
            write_record(run.store, name, record)


def parent_of_url(store_url: str, arm: str) -> str:
    from mantis.store.opening import open_store

    return parent_of(open_store(store_url), arm)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    def begin(arms: Arms, search: Search) -> list[str]:
        monkeypatch.setattr(sweep_runs, "start", arms.start)
        monkeypatch.setattr(search_runs, "compare", lambda parent: arms_of(parent.store, parent.id))
        monkeypatch.setattr(sweep_runs, "record_end", lambda run, status: None)
        made: Any = run_search(search, QUIET, ended=lambda run: None)
        return list(made)

    return begin


def known(search: Search) -> list[SweepTrial]:
    return read_trials(search.parent.store, search.parent.id)


def test_a_search_runs_each_trial_once_and_compares_the_complete_ones(tmp_path: Path, running: Any) -> None:
    search, arms = planned(tmp_path / "s"), Arms(prunes=(4,))
    compared = running(arms, search)
    trials = known(search)
    assert [trial.number for trial in trials] == list(range(6))
    assert [trial.state for trial in trials].count(TrialState.PRUNED) == 1
    assert trials[3].points == ((20, 9.0),)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert compared == list(dict.fromkeys(trial.run for trial in complete))
    for trial in complete:
        loss = abs(float(trial.changes["training.learning_rate"]) - 3e-4) * 1e4
        assert trial.loss == pytest.approx(loss)
        assert [step for step, _ in trial.points] == [10, 20]
        assert [each for _, each in trial.points] == pytest.approx([loss + 1, loss])
        assert changes_of(search.parent.store, trial.run) == trial.changes
    assert len(set(arms.begun)) == len(arms.begun)


@pytest.mark.parametrize("dies", [1, 3, 6])
def test_a_killed_search_goes_on_as_if_it_had_not_been_killed(tmp_path: Path, running: Any, dies: int) -> None:
    whole, killed = planned(tmp_path / "whole"), planned(tmp_path / "killed")
    running(Arms(prunes=(2,)), whole)
    first, second = Arms(dies, prunes=(2,)), Arms(prunes=(2 - dies + 1,))
    with pytest.raises(KeyboardInterrupt):
        running(first, killed)
    running(second, killed)
    assert known(killed) == known(whole)
    assert second.begun[0] == first.begun[-1]  # the trial that was killed
    assert not set(second.begun[1:]) & set(first.begun)


def test_more_trials_join_the_earlier_ones(tmp_path: Path, running: Any) -> None:
    running(Arms(), planned(tmp_path / "s", trials=3))
    more = Arms()
    search = planned(tmp_path / "s", trials=5)
    running(more, search)
    assert len(known(search)) == 5
    assert len(more.begun) == 2


def test_values_that_are_suggested_again_are_not_run_again(tmp_path: Path, running: Any) -> None:
    search, arms = planned(tmp_path / "s", {"training.seed": ["1", "2"]}, trials=6), Arms()
    running(arms, search)
    assert len(known(search)) == 6
    assert len(arms.begun) == 2


def test_values_follow_from_the_seed_the_number_and_the_losses(tmp_path: Path) -> None:
    drawn = [suggest(OVER, [], number=number, seed=0) for number in range(4)]
    assert drawn == [suggest(OVER, [], number=number, seed=0) for number in range(4)]
    assert len({str(each) for each in drawn}) == 4
    assert drawn != [suggest(OVER, [], number=number, seed=1) for number in range(4)]
    for each in drawn:
        assert 1e-4 <= float(each["training.learning_rate"]) <= 1e-3
        assert each["training.seed"] in ("1", "2", "3")


def test_the_sampler_follows_the_losses() -> None:
    over, trials = {"training.learning_rate": ["0.0..1.0"]}, list[SweepTrial]()
    for number in range(30):
        values = suggest(over, trials, number=number, seed=0)
        loss = abs(float(values["training.learning_rate"]) - 0.2)
        begun = SweepTrial(number=number, run=str(number), changes={}, values=values, state=TrialState.STARTED)
        trials.append(begun.ended(TrialState.COMPLETE, [], loss))
    losses = [trial.loss or 0.0 for trial in trials]
    assert sum(losses[15:]) < 0.6 * sum(losses[:15])


@pytest.mark.parametrize(
    ("values", "low", "high", "log"),
    [(["1e-5..1e-3:log"], 1e-5, 1e-3, True), (["1..8"], 1, 8, False), (["-0.5..2"], -0.5, 2.0, False)],
)
def test_a_range_has_two_ends(values: list[str], low: float, high: float, log: bool) -> None:
    found = range_of("f", values)
    assert found is not None
    assert type(found.low) is type(low)
    assert (found.low, found.high, found.log) == (low, high, log)
    assert range_of("f", ["a..b"]) is None
    assert range_of("f", ["1", "2"]) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [(["1..2", "3"], "stands alone"), (["2..1"], "below its upper"), (["0..1:log"], "above 0"), (["1..1"], "below")],
)
def test_a_wrong_range_is_explained(values: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        range_of("f", values)


def test_a_number_is_written_so_that_yaml_reads_a_number() -> None:
    assert as_text(1e-05) == "1.0e-05"
    assert [as_text(value) for value in (0.00035, 2.5e-07, 3, "[coref]")] == ["0.00035", "2.5e-07", "3", "[coref]"]


@pytest.mark.parametrize(
    ("over", "more", "message"),
    [
        (OVER, {"trials": 1}, "--trials 1: a comparison needs 2"),
        ({"training.learning_rate": ["-1..1e-3"]}, {}, "learning_rate"),
        ({"training.sead": ["1", "2"]}, {}, "sead"),
        ({"training.seed": ["1..x"]}, {}, "seed"),
    ],
)
def test_a_search_that_cannot_run_is_refused(tmp_path: Path, over: Any, more: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, over, **more)


def test_a_search_needs_the_held_out_loss(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.evaluate_every is not set"):
        plan_search("demo", {}, OVER, "", tmp_path.as_uri(), trials=4)


def test_a_range_needs_trials(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a range, which has no last value"):
        sweep_runs.plan_sweep("demo", EVALUATED, OVER, "", tmp_path.as_uri())


def test_a_name_belongs_to_one_space(tmp_path: Path, running: Any) -> None:
    running(Arms(), planned(tmp_path / "s", name="mine", trials=2))
    with pytest.raises(ConfigError, match="'mine' is a sweep over"):
        running(Arms(), planned(tmp_path / "s", {"training.seed": ["1", "2"]}, name="mine", trials=2))
    assert planned(tmp_path / "s").parent.id != planned(tmp_path / "s", {"training.seed": ["1", "2"]}).parent.id


def test_a_failed_trial_ends_the_search_and_is_tried_again(tmp_path: Path, running: Any) -> None:
    search = planned(tmp_path / "s", trials=2)

    class Failing(Arms):
        def start(self, *given: Any, **named: Any) -> None:
            self.begun.append(given[2])
            raise MantisError("no space left", remedy="")

    failing = Failing()
    with pytest.raises(MantisError, match="no space left"):
        running(failing, search)
    again = Arms()
    running(again, search)
    assert again.begun[0] == failing.begun[0]


def test_runs_that_all_have_the_same_values_cannot_be_compared(tmp_path: Path, running: Any) -> None:
    with pytest.raises(ConfigError, match="have 1 different runs with scores"):
        running(Arms(), planned(tmp_path / "s", {"training.seed": ["1"]}, trials=2))


def test_the_arms_belong_to_the_sweep(tmp_path: Path, running: Any) -> None:
    search = planned(tmp_path / "s", trials=2)
    names = running(Arms(), search)
    run = open_run(names[0], search.parent.store.url)
    assert isinstance(run, Run)
    assert run.parent == search.parent.id
