"""Against a real MLflow on SQLite; tests/integration/pipelines/test_runs_page.py looks at the page."""

import json
from dataclasses import replace
from typing import Any

import pytest

from mantis.config.recipe import Recipe
from mantis.runs.arms import changes_in_words
from mantis.runs.step_runner import Run
from mantis.tracking.mlflow_runs import mlflow_client, open_tracked_run, record_run, send_curve
from mantis.tracking.runs_view import VIEW_TAG, keep_view, newest_experiment, table_of_runs, varied_parameters, view_of

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _sqlite_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


def changed(recipe: Recipe, **fields: float) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=fields)})


def trained(run: Run, name: str, score: float, parent: str = "", **fields: float) -> Any:
    """A run in MLflow with a loss and scores."""
    words = changes_in_words({f"training.{field}": str(value) for field, value in fields.items()})
    one = replace(run, id=name, recipe=changed(run.recipe, **fields), parent=parent)
    tracked = open_tracked_run(one, tags={"changed": words or "nothing"})
    send_curve(tracked, [{"step": step, "train/loss": 1 / step} for step in (1, 2)])
    scores = {"score.demo-single": score, "score.mean": score}
    record_run(tracked, scores=scores, tags={}, dataset=None, files=[])
    return tracked


def test_the_table_of_runs_is_that_of_the_newest_run(run: Run) -> None:
    client = mlflow_client(run.store)
    assert newest_experiment(client) == ""
    assert table_of_runs(client, "") == "#/experiments?workflowType=machine_learning"
    open_tracked_run(run)
    tracking = run.recipe.tracking.model_copy(update={"experiment": "second"})
    second = open_tracked_run(replace(run, id="b", recipe=run.recipe.model_copy(update={"tracking": tracking})))
    newest = newest_experiment(second.client)
    assert newest == second.experiment
    page = f"#/experiments/{newest}/runs?workflowType=machine_learning"
    assert table_of_runs(client, newest) == page
    keep_view(client, newest)
    assert table_of_runs(client, newest) == f"{page}&viewStateShareKey=mantis"


def test_the_view_shows_changes_and_scores_and_plots_the_fields_that_were_varied(run: Run) -> None:
    open_tracked_run(replace(run, id="a run without a result"))
    for number, rate in enumerate((1e-4, 2e-4, 4e-4)):
        tracked = trained(run, f"run-{number}", score=number / 10, learning_rate=rate, seed=number // 2)
    parent = open_tracked_run(replace(run, id="parent"))
    record_run(parent, scores={"score.1a2b3c.demo-single": 0.1}, tags={}, dataset=None, files=[])
    keep_view(tracked.client, tracked.experiment)
    view = json.loads(tracked.client.get_experiment(tracked.experiment).tags[VIEW_TAG])
    assert view["selectedColumns"] == ["tags.`changed`", "metrics.`score.mean`", "metrics.`train/loss`"]
    assert view["orderByKey"] in view["selectedColumns"]
    (plot,) = (card for card in view["compareRunCharts"] if card["type"] == "PARALLEL")
    assert plot["selectedParams"] == ["training.learning_rate", "training.seed"]
    assert plot["selectedMetrics"] == ["train/loss", "score.mean"]
    sections = [section["uuid"] for section in view["compareRunSections"]]
    assert [card["metricSectionId"] for card in view["compareRunCharts"]] == sections[:2]
    assert view["compareRunCharts"][0]["metricKey"] == "train/loss"


def test_fields_that_were_changed_on_purpose_come_before_others(run: Run) -> None:
    for number in range(3):
        tracked = trained(run, f"run-{number}", score=0.5, seed=number, learning_rate=(1e-4, 1e-4, 2e-4)[number])
    runs = tracked.client.search_runs([tracked.experiment])
    assert varied_parameters(runs) == ["training.learning_rate", "training.seed"]
    for one in runs:
        one.data.tags["changed"] = f"training.seed = {one.data.params['training.seed']}"
    assert varied_parameters(runs) == ["training.seed"]
    for one in runs:
        del one.data.tags["changed"]
    assert set(varied_parameters(runs)) == {"training.learning_rate", "training.seed"}


def test_a_view_of_no_runs_and_of_many_benchmarks_fits_into_a_tag(run: Run) -> None:
    assert view_of([])["selectedColumns"][0] == "tags.`changed`"
    tracked = open_tracked_run(run)
    scores = {f"score.benchmark-{number:02}": 0.5 for number in range(15)} | {"score.mean": 0.5}
    record_run(tracked, scores=scores, tags={}, dataset=None, files=[])
    keep_view(tracked.client, tracked.experiment)
    columns = json.loads(tracked.client.get_experiment(tracked.experiment).tags[VIEW_TAG])["selectedColumns"]
    assert len([name for name in columns if "`score." in name]) == 5
