"""Against a real MLflow on SQLite."""

import json

import pytest

from components.core.tracking import CurveSender, flat_recipe, open_tracked_run, record_run, score_metrics, send_curve

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _sqlite_only(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)


def rows(first: int, last: int) -> list[dict[str, float]]:
    return [{"step": step, "train/loss": 1.0 / step, "train/learning_rate": 0.1} for step in range(first, last)]


def test_a_run_in_mlflow(run, tmp_path):
    sender = CurveSender(run)
    for row in rows(1, 11):
        sender.add(int(row["step"]), {key: value for key, value in row.items() if key != "step"})
    sender.close()

    # The next attempt repeats steps 6 to 10 and goes on to 15: each step stands there once.
    tracked = open_tracked_run(run)
    assert send_curve(tracked, rows(6, 16)) == 5
    history = tracked.client.get_metric_history(tracked.id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, 16))

    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    dataset = {"name": "demo", "digest": "abc", "source": json.dumps({"uri": "file:///x"})}
    scores = {"eval/demo/compare/accuracy": 0.9}
    for _ in range(2):  # finishing twice counts nothing twice
        record_run(
            open_tracked_run(run),
            run,
            status="FINISHED",
            scores=scores,
            tags={"code_version": "abc"},
            dataset=dataset,
            files=[report],
        )
    shown = tracked.client.get_run(tracked.id)
    assert shown.info.status == "FINISHED"
    assert shown.data.params == flat_recipe(run)
    assert shown.data.metrics["eval/demo/compare/accuracy"] == 0.9
    assert len(tracked.client.get_metric_history(tracked.id, "eval/demo/compare/accuracy")) == 1
    assert [item.dataset.name for item in shown.inputs.dataset_inputs] == ["demo"]
    assert [file.path for file in tracked.client.list_artifacts(tracked.id)] == ["report.html"]


def test_an_outage_costs_training_nothing(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    sender = CurveSender(run)
    sender.add(1, {"train/loss": 1.0})
    sender.close(seconds=30)


def test_scores_have_names_that_runs_share():
    base = {"accuracy": 0.6, "low": 0.5, "high": 0.7, "strict": 0.55, "blind": None, "unparsed": 3}
    rows = [
        {**base, "benchmark": "blink", "skill": "overall", "aggregation": "macro"},
        {**base, "benchmark": "blink", "skill": "Counting", "aggregation": None, "accuracy": 0.1},
        {**base, "benchmark": "demo-multi", "skill": "compare", "aggregation": None, "accuracy": 0.8},
        {**base, "benchmark": "demo-multi", "skill": "coref", "aggregation": None, "accuracy": 0.4},
    ]
    metrics = score_metrics(rows)
    assert metrics["eval/blink/overall/accuracy"] == 0.6
    assert (metrics["eval/blink/overall/low"], metrics["eval/blink/overall/high"]) == (0.5, 0.7)
    assert metrics["eval/demo-multi/coref/unparsed"] == 3
    assert metrics["eval/mean/accuracy"] == pytest.approx((0.6 + (0.8 + 0.4) / 2) / 2)
    assert not any("blind" in name for name in metrics)
    assert score_metrics([]) == {}
