"""Against a real MLflow on SQLite."""

import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, Reference
from mantis.runs.arms import write_arms
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from mantis.tracking import mlflow_runs, reachability
from mantis.tracking.mlflow_runs import (
    RUN_TAG,
    CurveSender,
    Status,
    curve_row,
    end_tracked_run,
    find_tracked_run,
    open_tracked_run,
    record_run,
    send_curve,
)
from mantis.tracking.reachability import SENT_LATER
from mantis.tracking.run_description import DatasetEntry, flat_recipe
from mantis.tracking.score_metrics import score_metrics, score_table
from tests.helpers.paths import root_of
from tests.helpers.waiting import HANG_SECONDS, until

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _sqlite_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


def rows(first: int, last: int) -> list[dict[str, float]]:
    return [{"step": step, "train/loss": 1.0 / step, "train/learning_rate": 0.1} for step in range(first, last)]


def test_a_run_in_mlflow(run: Run, tmp_path: Path) -> None:
    sender = CurveSender(run)
    for row in rows(1, 11):
        sender.add(row)
    sender.close()

    # The next attempt repeats steps 6 to 10 and goes on to 15: each step stands there once.
    tracked = open_tracked_run(run)
    assert send_curve(tracked, rows(6, 16)) == 5
    history = tracked.client.get_metric_history(tracked.id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, 16))

    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    dataset = DatasetEntry(name="demo", digest="abc", source=json.dumps({"key": "mixtures/x"}), context="training")
    scores = {"score.demo": 0.9}
    for _ in range(2):  # finishing twice counts nothing twice
        record_run(
            open_tracked_run(run),
            scores=scores,
            tags={"code_version": "abc"},
            dataset=dataset,
            files=[report],
        )
    shown = tracked.client.get_run(tracked.id)
    assert shown.data.params == flat_recipe(run.recipe)
    assert shown.data.metrics["score.demo"] == 0.9
    assert len(tracked.client.get_metric_history(tracked.id, "score.demo")) == 1
    assert [item.dataset.name for item in shown.inputs.dataset_inputs] == ["demo"]
    kept = root_of(run.store) / "mlflow-artifacts" / tracked.id / "artifacts"
    assert [file.name for file in kept.iterdir()] == ["report.html"]


ODD_NAMES = ["A first", "Q&A (charts)", "Q?A (charts)", "z last", "", "..", "a/b", "Größe: groß", "+", "x" * 300]


def test_every_score_is_sent_whatever_the_benchmark_is_called(run: Run, tmp_path: Path) -> None:
    """MLflow refuses some names, and then takes nothing that stands behind them."""
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    scores = score_metrics(
        {"benchmark": name, "skill": "b", "accuracy": number / 100} for number, name in enumerate(ODD_NAMES)
    )
    tracked = open_tracked_run(run)
    record_run(tracked, scores=scores, tags={}, dataset=None, files=[report])
    sent = tracked.client.get_run(tracked.id).data.metrics
    assert sent == scores
    assert len(sent) == len(ODD_NAMES) + 1, "a name for each benchmark, and the mean"
    assert sent["score.A first"] == 0.0
    assert any(name.startswith("score.Q_A _charts_-") for name in sent)
    kept = root_of(run.store) / "mlflow-artifacts" / tracked.id / "artifacts"
    assert [file.name for file in kept.iterdir()] == ["report.html"]


def test_processes_that_open_a_run_at_the_same_moment_open_one(run: Run) -> None:
    open_tracked_run(replace(run, id="before"))  # the database is made
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: open_tracked_run(run), range(6)))
    again = open_tracked_run(run)
    assert {one.id for one in opened} == {again.id}
    listed = again.client.search_runs([again.experiment], filter_string=f"tags.`{RUN_TAG}` = '{run.id}'")
    assert [one.info.run_id for one in listed] == [again.id]


def test_an_older_run_of_another_machine_that_is_written_later_is_the_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    open_tracked_run(replace(run, id="before"))  # the database is made
    create = mlflow.MlflowClient.create_run
    theirs = []

    def create_with_another(client: Any, experiment: Any, **given: Any) -> Any:
        mine = create(client, experiment, **given)
        older = mine.info.start_time - 500
        late = threading.Timer(0.3, lambda: theirs.append(create(client, experiment, start_time=older, **given)))
        late.start()
        return mine

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", create_with_another)
    opened = open_tracked_run(run)
    assert opened.id == theirs[0].info.run_id == open_tracked_run(run).id
    assert len(opened.client.search_runs([opened.experiment], f"tags.`{RUN_TAG}` = '{run.id}'")) == 1


def test_processes_that_make_the_experiment_at_the_same_moment_make_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_tracked_run(run)  # the database is made
    together, looked = threading.Barrier(3, timeout=HANG_SECONDS), threading.local()
    ask = mlflow.MlflowClient.get_experiment_by_name

    def ask_together(client: Any, name: Any) -> Any:
        found = ask(client, name)
        if not getattr(looked, "once", False):
            looked.once = True
            together.wait()
        return found

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", ask_together)
    tracking = run.recipe.tracking.model_copy(update={"experiment": "new"})
    first = replace(run, recipe=run.recipe.model_copy(update={"tracking": tracking}))
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: open_tracked_run(first), range(3)))
    assert len({(one.experiment, one.id) for one in opened}) == 1


def test_the_same_id_in_another_store_is_another_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    other = replace(run, store=LocalStore(tmp_path / "other"))
    assert open_tracked_run(run).id != open_tracked_run(other).id
    assert open_tracked_run(run).id == open_tracked_run(run).id


def test_a_run_that_nobody_opened_is_not_found_and_not_made(run: Run) -> None:
    assert find_tracked_run(run) is None
    opened = open_tracked_run(run)
    assert find_tracked_run(run).id == opened.id


def test_kfps_own_mlflow_run_is_used_and_an_arm_is_nested_in_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_tracked_run(replace(run, id="made by KFP"))
    monkeypatch.setenv("MLFLOW_RUN_ID", made.id)
    assert open_tracked_run(run).id == made.id
    arm = open_tracked_run(replace(run, id=f"{run.id}-coref", parent=run.id))
    assert arm.id != made.id
    assert arm.client.get_run(arm.id).data.tags["mlflow.parentRunId"] == made.id


def test_tasks_to_which_kfp_gave_runs_of_their_own_share_the_one_around_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = open_tracked_run(replace(run, id="made by KFP"))
    opened = set()
    for task in ("train", "finish"):
        nested = root.client.create_run(root.experiment, run_name=task, tags={"mlflow.parentRunId": root.id})
        monkeypatch.setenv("MLFLOW_RUN_ID", nested.info.run_id)
        opened.add(open_tracked_run(run).id)
        assert find_tracked_run(run).id == root.id
    assert opened == {root.id}
    arm = open_tracked_run(replace(run, id=f"{run.id}-coref", parent=run.id))
    assert arm.client.get_run(arm.id).data.tags["mlflow.parentRunId"] == root.id


def test_rows_of_an_outage_arrive_when_mlflow_is_back(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same sender waits through the outage: training goes on meanwhile."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(mlflow_runs, "SECONDS_BETWEEN_BATCHES", 0.02)
    monkeypatch.setattr(reachability, "AGAIN_SECONDS", -1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    sender = CurveSender(run)
    sender.add({"step": 1, "train/loss": 1.0})
    until("the outage is noticed", lambda: SENT_LATER in caplog.text)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # a database beside the store answers from now on
    sender.add({"step": 2, "train/loss": 0.5})
    sender.close(seconds=300)
    tracked = find_tracked_run(run)
    assert tracked is not None
    history = tracked.client.get_metric_history(tracked.id, "train/loss")
    assert {point.step: point.value for point in history} == {1: 1.0, 2: 0.5}
    assert "MLflow is back" in caplog.text


def test_scores_have_names_that_runs_share() -> None:
    base = {"accuracy": 0.6, "low": 0.5, "high": 0.7, "strict": 0.55, "blind": None, "unparsed": 3}
    rows = [
        {**base, "benchmark": "blink", "skill": "overall", "aggregation": "macro"},
        {**base, "benchmark": "blink", "skill": "Counting", "aggregation": None, "accuracy": 0.1},
        {**base, "benchmark": "demo-multi", "skill": "compare", "aggregation": None, "accuracy": 0.8},
        {**base, "benchmark": "demo-multi", "skill": "coref", "aggregation": None, "accuracy": 0.4},
    ]
    metrics = score_metrics(rows)
    mean = (0.8 + 0.4) / 2
    assert metrics == pytest.approx({"score.blink": 0.6, "score.demo-multi": mean, "score.mean": (0.6 + mean) / 2})
    table = json.loads(score_table(rows))
    shown = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["skill"], row["accuracy"]) for row in shown] == [
        ("overall", 0.6),
        ("Counting", 0.1),
        ("compare", 0.8),
        ("coref", 0.4),
    ]
    assert {(row["low"], row["high"], row["strict"], row["unparsed"], row["blind"]) for row in shown} == {
        (0.5, 0.7, 0.55, 3, None)
    }
    assert score_metrics([]) == {}


def test_a_run_has_its_parameters_and_its_source_from_the_beginning(run: Run) -> None:
    tracked = open_tracked_run(run, title="demo seed=2", tags={"changed": "training.seed = 2"})
    shown = tracked.client.get_run(tracked.id)
    assert (shown.info.status, shown.info.run_name) == ("RUNNING", "demo seed=2")
    assert shown.data.params == flat_recipe(run.recipe)
    wanted = {
        "changed": "training.seed = 2",
        "recipe": run.recipe.name,
        "mlflow.source.name": f"mantis {run.recipe.name}",
    }
    assert wanted.items() <= shown.data.tags.items()
    assert shown.data.tags["mlflow.source.git.commit"] == shown.data.tags["code_version"]

    tracked.client.update_run(tracked.id, name="the good one")
    open_tracked_run(run, title="demo seed=2")
    assert tracked.client.get_run(tracked.id).info.run_name == "the good one", "a name that a user gave stays"


def test_a_run_that_compares_others_has_their_common_parameters(run: Run) -> None:
    arms = []
    for seed in (1, 2):
        training = run.recipe.training.model_copy(update={"seed": seed})
        arms.append(replace(run, id=f"abl-{seed}", recipe=run.recipe.model_copy(update={"training": training})))
        run.store.put(f"runs/abl-{seed}/recipe.yaml", arms[-1].recipe.to_yaml().encode())
    write_arms(run.store, "abl", [arm.id for arm in arms])
    tracked = open_tracked_run(replace(run, id="abl"))
    known, one = tracked.client.get_run(tracked.id).data.params, flat_recipe(arms[0].recipe)
    assert known == {name: value for name, value in one.items() if name != "training.seed"}


def test_a_training_names_its_mixture_before_its_end(run: Run) -> None:
    made_by = MadeBy(run=run.id, step="assemble", revision=1, config_hash="c", code_version="v", image_digest="")
    mixture = Manifest(
        kind=ArtifactKind.MIXTURE,
        key=f"mixtures/{'a' * 64}",
        fingerprint="a" * 64,
        inputs={name: Reference(key=f"datasets/{name}/{'b' * 64}", fingerprint="b" * 64) for name in ("two", "one")},
        made_by=made_by,
        files=(),
        summary={"samples": 40},
    )
    for _ in range(2):  # a resumed training names it once
        sender = CurveSender(run, mixture)
        sender.add({"step": 1, "train/loss": 1.0})
        sender.close()
    tracked = find_tracked_run(run)
    assert tracked is not None
    (logged,) = tracked.client.get_run(tracked.id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("one+two", "a" * 36)
    assert json.loads(logged.dataset.profile) == {"samples": 40}
    assert [tag.value for tag in logged.tags] == ["training"]


def test_rows_keep_their_own_time(run: Run) -> None:
    tracked = open_tracked_run(run)
    send_curve(tracked, [curve_row({"step": 1, "time": 1_700_000_000.25, "loss": 2.0})])
    (metric,) = tracked.client.get_metric_history(tracked.id, "train/loss")
    assert (metric.timestamp, metric.step, metric.value) == (1_700_000_000_250, 1, 2.0)
    assert set(tracked.client.get_run(tracked.id).data.metrics) == {"train/loss"}


@pytest.mark.parametrize("status", [Status.FINISHED, Status.KILLED, Status.FAILED])
def test_a_training_that_nobody_follows_closes_its_run(run: Run, status: Status) -> None:
    """It may have failed before its curve was sent, which opens the run."""
    for one in (run, replace(run, id="opened")):
        if one is not run:
            open_tracked_run(one)
        end_tracked_run(one, status)
        tracked = find_tracked_run(one)
        assert tracked is not None
        ended = tracked.client.get_run(tracked.id)
        assert (ended.info.status, ended.info.end_time >= ended.info.start_time) == (status, True)
        assert ended.data.params["training.seed"] == str(run.recipe.training.seed)


def test_processes_that_create_the_database_at_the_same_moment_create_one(tmp_path: Path) -> None:
    code = (
        "import sys; from mantis.store.opening import open_store;"
        "from mantis.tracking.mlflow_runs import mlflow_client;"
        "print(len(mlflow_client(open_store(sys.argv[1])).search_experiments()))"
    )
    command = [sys.executable, "-c", code, (tmp_path / "store").as_uri()]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=HANG_SECONDS) for process in started]
    assert [out.strip() for out, _ in ended] == ["1", "1"], ended[0][1]
    assert not any("Creating initial" in said for _, said in ended), "MLflow's own words stay out of the terminal"
