"""Build summary.json, the report for machines."""

from typing import Any

from components.reporting.collect.report_schema import RunReport, Training
from components.reporting.compare_runs import Comparison
from mantis.artifacts.scores import Score
from mantis.statistics import Paired


def summary(report: RunReport) -> dict[str, Any]:
    """Return the run in numbers; unknown values are None. Fingerprints and seconds are by step."""
    return {
        "run": report.run,
        "recipe": report.recipe,
        "fingerprints": {artifact.step: artifact.fingerprint for artifact in report.lineage},
        "scores": [_score(score) for score in report.scores],
        "training": _training(report.training),
        "seconds": {step.step: round(step.seconds, 3) for step in report.steps},
        **({"held_out": [row.model_dump(mode="json") for row in report.held_out]} if report.held_out else {}),
    }


def _score(score: Score) -> dict[str, Any]:
    names = ("benchmark", "skill", "samples", "accuracy", "low", "high", "chance", "blind", "shuffled")
    return {name: getattr(score, name) for name in names}


def _training(training: Training | None) -> dict[str, Any]:
    names = ("steps", "first_loss", "last_loss", "samples_per_second", "goodput")
    found = {name: getattr(training, name, None) for name in names}
    if training is None:
        return found
    setup, best = training.setup, training.best
    machines = ("hardware", "ranks", "nodes", "gpus", "software", "device_hours", "cost")
    known = {name: value for name in machines if (value := getattr(setup, name)) is not None}
    losses = {} if best is None else {"best_step": best.step, "best_held_out_loss": best.loss}
    return found | known | losses


def comparison_summary(run: str, comparison: Comparison) -> dict[str, Any]:
    """Return the arms in numbers; `difference` is from the first arm on shared samples, None if they share none."""
    rows = []
    for row in comparison.rows:
        for arm, cell in zip(comparison.arms, row.cells, strict=True):
            if cell is not None:
                rows.append({"run": arm.run, **_score(cell.score), **_paired(cell.paired)})
    return {"run": run, "arms": [arm.run for arm in comparison.arms], "scores": rows}


def _paired(paired: Paired | None) -> dict[str, float | None]:
    names = {"difference": "difference", "difference_low": "low", "difference_high": "high", "p": "p"}
    names |= {"corrected_p": "corrected_p", "samples_for_a_point": "needed"}
    return {name: getattr(paired, field, None) for name, field in names.items()}
