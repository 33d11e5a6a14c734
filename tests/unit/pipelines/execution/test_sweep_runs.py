"""A sweep: its arms, their names, and a sweep that is started again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.data.step import datasets_of_arms
from mantis.errors import ConfigError, MantisError
from mantis.runs.arms import arms_of, changes_of, parent_of
from mantis.runs.records import State, StepRecord
from mantis.runs.step_runner import open_run
from mantis.store.opening import open_store
from pipelines.execution import ablation_runs
from pipelines.execution.sweeps import sweep_runs
from pipelines.execution.sweeps.search_space import parse_over
from pipelines.execution.sweeps.sweep_end import close_sweep
from pipelines.execution.sweeps.sweep_runs import Sweep, in_words_left, plan_sweep, prepare_sweep, run_sweep

RATES = {"training.learning_rate": ["2e-4", "4.0e-4"]}
GRID = RATES | {"training.seed": ["1", "2"]}


def planned(folder: Path, over: Mapping[str, Any] = GRID, name: str = "") -> Sweep:
    return plan_sweep("demo", {"data.generated_conversations": "100"}, over, name, folder.as_uri())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["a=1,2", "b = x"], {"a": ["1", "2"], "b": ["x"]}),
        (["data.skills=[coref],[coref, compare]"], {"data.skills": ["[coref]", "[coref, compare]"]}),
        (["a='x,y',\"],\",{b: [1,2]}"], {"a": ["'x,y'", '"],"', "{b: [1,2]}"]}),
    ],
)
def test_a_comma_within_brackets_or_quotes_belongs_to_a_value(given: list[str], found: Any) -> None:
    assert parse_over(given) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["training.seed"], "is no list of values"),
        (["=1,2"], "is no list of values"),
        (["training.seed=1,"], "is no list of values"),
        (["a=1,2", "a=3"], "names a twice"),
    ],
)
def test_other_texts_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_over(given)


def test_an_arm_for_each_combination_and_a_name_that_follows_from_it(tmp_path: Path) -> None:
    sweep = planned(tmp_path)
    assert [tuple(arm.changes.values()) for arm in sweep.arms] == [
        ("2e-4", "1"), ("2e-4", "2"), ("4.0e-4", "1"), ("4.0e-4", "2"),
    ]  # fmt: skip
    names = [arm.run for arm in sweep.arms]
    assert len(set(names)) == 4
    assert all(name.startswith(f"{sweep.parent.id}-") for name in names)
    assert sweep.parent.id.endswith("-sweep")
    more = planned(tmp_path, GRID | {"training.seed": ["3", "2", "1"]})
    assert set(names) < {arm.run for arm in more.arms}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"training.seed": ["1"]}, "needs 2 or more arms, but --over gives 1"),
        ({"training.seed": ["1", "01"]}, "training.seed = 01 and training.seed = 1 give the same results"),
        ({"training.log_every": ["1", "2"]}, "only fields that decide results"),
        ({"training.sead": ["1", "2"]}, "sead"),
        ({"training.learning_rate": ["1e-4", "-1"]}, "learning_rate"),
    ],
)
def test_a_sweep_that_compares_nothing_is_refused(tmp_path: Path, over: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, over)


def test_started_again_it_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second arm fails at first. The runs themselves are replaced by their records."""
    sweep, begun, ended = planned(tmp_path / "store"), list[str](), list[tuple[str, str]]()
    fails = [sweep.arms[1].run]

    def begin(recipe: str, changes: Any, name: str, store_url: str, *_: Any, **__: Any) -> None:
        run = open_run(name, store_url)
        assert run.parent == sweep.parent.id
        assert str(run.recipe.training.seed) == changes["training.seed"]
        begun.append(name)
        if name in fails:
            fails.clear()
            raise MantisError("no space left", remedy="")
        record = StepRecord(step="report", state=State.DONE, started="2026-01-02T03:04:05+00:00")
        run.store.put(run.key("steps/report.json"), record.model_dump_json().encode())

    monkeypatch.setattr(sweep_runs, "start", begin)
    monkeypatch.setattr(sweep_runs, "compare", lambda parent: arms_of(parent.store, parent.id))
    monkeypatch.setattr(sweep_runs, "record_end", lambda run, status: ended.append((run.id, status)))
    quiet = Console(quiet=True)
    with pytest.raises(MantisError, match="no space left"):
        run_sweep(sweep, quiet, ended=lambda run: None)
    names = [arm.run for arm in sweep.arms]
    assert begun == names[:2]
    made: Any = run_sweep(sweep, quiet, ended=lambda run: None)
    assert begun == [*names[:2], *names[1:]]
    assert made == names
    assert ended == [(sweep.parent.id, "FAILED"), (sweep.parent.id, "FINISHED")]
    assert {parent_of(open_store(sweep.parent.store.url), name) for name in names} == {sweep.parent.id}


def test_nothing_is_started_if_one_arm_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = {"evaluation.benchmarks": ["[demo-multi]", "[blink]"]}  # the store has no BLINK
    monkeypatch.setattr(sweep_runs, "start", lambda *_, **__: pytest.fail("an arm was started"))
    with pytest.raises(MantisError, match="blink"):
        run_sweep(planned(tmp_path / "store", over), Console(quiet=True), ended=lambda run: None)


def test_the_arms_of_a_cluster_are_planned_as_here_and_share_their_datasets(tmp_path: Path) -> None:
    over = {"data.skills": ["[single]", "[single,multi]"], "training.seed": ["1", "2"]}
    sweep = planned(tmp_path / "store", over)
    assert prepare_sweep(sweep) == sweep.parent
    store = sweep.parent.store
    assert arms_of(store, sweep.parent.id) == [arm.run for arm in sweep.arms]
    assert [changes_of(store, arm.run) for arm in sweep.arms] == [arm.changes for arm in sweep.arms]
    needed = datasets_of_arms(open_run(sweep.parent.id, store.url))
    assert sorted(subset for _, subset in needed) == ["demo-multi", "demo-single"]
    assert {arm for arm, _ in needed} <= {arm.run for arm in sweep.arms}


@pytest.mark.parametrize(("states", "ends"), [(("done", "done"), "FINISHED"), (("done", "failed"), "FAILED")])
def test_a_sweep_on_a_cluster_closes_every_arm_and_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: tuple[str, str], ends: str
) -> None:
    ended = dict[str, str]()
    monkeypatch.setattr(ablation_runs, "record_end", lambda run, status: ended.update({run.id: status}))
    over = "training.learning_rate=2e-4,4.0e-4"
    asked: Any = ("demo", {"data.generated_conversations": "100"}, over, "mine", (tmp_path / "store").as_uri())
    close_sweep(*asked)
    assert ended == {}  # preflight stored nothing
    sweep = planned(tmp_path / "store", RATES, "mine")
    prepare_sweep(sweep)
    for run, state in zip([*(arm.run for arm in sweep.arms), "mine"], [*states, "done"], strict=True):
        record = StepRecord(step="report", state=State(state), started="2026-01-02T03:04:05+00:00")
        sweep.parent.store.put(f"runs/{run}/steps/report.json", record.model_dump_json().encode())
    close_sweep(*asked)
    statuses = ["FINISHED" if state == "done" else "FAILED" for state in states]
    assert ended == dict(zip([arm.run for arm in sweep.arms], statuses, strict=True)) | {"mine": ends}


def test_the_time_left_follows_from_the_arms_before(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    assert in_words_left(store, [], 3) == ""
    for run, seconds in (("a", 60), ("b", 120)):
        record = StepRecord(step="train", state=State.DONE, started="2026-01-02T03:04:05+00:00", seconds=seconds)
        store.put(f"runs/{run}/steps/train.json", record.model_dump_json().encode())
    assert in_words_left(store, ["a", "b"], 2) == ", about 3:00 left"
