"""MLflow's table of runs: its address, and a view with the changed fields, the scores and a plot of both.

MLflow's page stores a shared view as a tag of the experiment. A link with the view's key opens it. Without a view, the
table shows neither parameters nor metrics, and its charts only ten runs.
"""

import json
from collections.abc import Sequence
from typing import Any

from mantis.tracking.mlflow_runs import MARKER_METRIC
from mantis.tracking.score_metrics import SCORE

VIEW = "mantis"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # defined by MLflow's page
CHANGED_TAG = "changed"
MEAN_SCORE = f"{SCORE}.mean"
CURVES = (MARKER_METRIC, "train/held_out_loss", "train/learning_rate")
OUTCOMES = (MARKER_METRIC, "train/held_out_loss", MEAN_SCORE)  # MLflow colours the lines of a plot by the last one
RUNS = 100  # the newest ones, from which the columns are chosen
SCORE_COLUMNS = 4  # besides the mean, where there are several benchmarks
CHANGED_WIDTH, METRIC_WIDTH = 420, 100  # pixels
AXES = 5  # of a plot, for parameters
# Fields that a page before MLflow 3.17 misses if the view lacks them.
DEFAULTS: dict[str, Any] = {
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "viewMaximized": False,
    "runListHidden": False,
    "groupBy": None,
    "groupsExpanded": {},
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}
UNPLOTTED = frozenset({"name", "description"})


def table_of_runs(client: Any, experiment: str) -> str:
    """Return the page of an experiment's runs, relative to the server; without one, the page of experiments.

    Without `workflowType`, MLflow 3 opens its pages for traces of language models, which are empty. The page refuses
    a view that the experiment does not have.
    """
    kind = "workflowType=machine_learning"
    if not experiment:
        return f"#/experiments?{kind}"
    view = f"&viewStateShareKey={VIEW}" if VIEW_TAG in client.get_experiment(experiment).tags else ""
    return f"#/experiments/{experiment}/runs?{kind}{view}"


def newest_experiment(client: Any) -> str:
    """Return the experiment with the newest run; empty if there is no run."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    newest = client.search_runs(experiments, max_results=1, order_by=["attributes.start_time DESC"])
    return str(newest[0].info.experiment_id) if newest else ""


def keep_view(client: Any, experiment: str) -> None:
    """Store the view that fits the newest runs of an experiment. Errors of MLflow's client pass."""
    runs = client.search_runs([experiment], max_results=RUNS, order_by=["attributes.start_time DESC"])
    view = json.dumps(view_of(runs), separators=(",", ":"))
    if client.get_experiment(experiment).tags.get(VIEW_TAG) != view:
        client.set_experiment_tag(experiment, VIEW_TAG, view)


def view_of(runs: Sequence[Any]) -> dict[str, Any]:
    """Describe the view of `runs` (mlflow.entities.Run), as MLflow's page reads it (ExperimentPageUIState.tsx).

    The columns are the changed fields, the scores and the loss. The charts are the curves of the training, a plot of
    parallel coordinates, and all other metrics. The best run comes first. In this order the page shows the arms of a
    sweep, which it folds under their parent in the order of time.
    """
    known = {name for run in runs for name in run.data.metrics}
    scores = [name for name in sorted(known) if name.startswith(f"{SCORE}.") and name.count(".") == 1]
    others = [name for name in scores if name != MEAN_SCORE]
    shown = [MEAN_SCORE, *(others[:SCORE_COLUMNS] if len(others) > 1 else []), MARKER_METRIC]
    widths = {_column("tags", CHANGED_TAG): CHANGED_WIDTH} | {_column("metrics", name): METRIC_WIDTH for name in shown}
    axes = varied_parameters(runs)
    curves = [name for name in CURVES if name in known] or [MARKER_METRIC]
    outcomes = [name for name in OUTCOMES if name in known] or [MARKER_METRIC]
    sections = {"curves": "Curves", "axes": "Parameters and results"}
    sections |= {"scores": "Model metrics", "train": "train"}  # MLflow gives metrics these names
    return DEFAULTS | {
        "orderByKey": _column("metrics", MEAN_SCORE),
        "orderByAsc": False,
        "selectedColumns": list(widths),
        "columnOrder": list(widths),
        "columnWidths": widths,
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [
            *(_card("LINE", "curves", metricKey=name, selectedMetricKeys=[name]) for name in curves),
            _card("PARALLEL", "axes", selectedParams=axes, selectedMetrics=outcomes, showAllRuns=True),
        ],
        "compareRunSections": [
            {"uuid": key, "name": name, "display": True, "isReordered": False, "isGenerated": True}
            | ({"columns": 1} if key == "axes" else {})
            for key, name in sections.items()
        ],
        "isAccordionReordered": True,  # else the page sorts its sections by name
    }


def varied_parameters(runs: Sequence[Any]) -> list[str]:
    """Return the parameters in which trained runs differ: those that most runs changed on purpose, by name."""
    trained = [run for run in runs if MARKER_METRIC in run.data.metrics]
    names = {name for run in trained for name in run.data.params} - UNPLOTTED
    varied = [name for name in names if len({run.data.params.get(name) for run in trained}) > 1]

    def times_changed(name: str) -> int:
        return sum(f"{name} = " in run.data.tags.get(CHANGED_TAG, "") for run in trained)

    changed = [name for name in varied if times_changed(name)]
    return sorted(sorted(changed or varied, key=lambda name: (-times_changed(name), name))[:AXES])


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _card(kind: str, section: str, **more: Any) -> dict[str, Any]:
    name = "-".join([kind.lower(), *more.get("selectedMetricKeys", ())])
    common = {"uuid": name, "type": kind, "metricSectionId": section, "deleted": False, "isGenerated": False}
    return common | more
