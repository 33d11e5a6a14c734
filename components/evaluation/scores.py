"""Responses to scores: a row per skill, with intervals, chance and controls."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.core.artifacts import Number
from components.evaluation.benchmarks import Benchmark
from components.evaluation.conditions import Condition
from components.evaluation.intervals import bootstrap_interval, p_above_chance
from components.evaluation.responses import Response

Row = dict[str, Any]
CONTROLS: tuple[Condition, ...] = ("blind", "shuffled")


def score_rows(benchmark: Benchmark, responses: Mapping[Condition, Sequence[Response]], *, seed: int) -> list[Row]:
    """The rows of scores.json, for the benchmark's skills that occur; accuracies are shares, None where not asked."""
    rows: list[Row] = []
    for name, skill in benchmark.skills.items():
        actual = _of(responses["actual"], name)
        if not actual:
            continue
        low, high = bootstrap_interval([float(response.correct) for response in actual], seed=seed)
        row: Row = {
            "benchmark": benchmark.name,
            "skill": name,
            "label": skill.label,
            "samples": len(actual),
            "accuracy": _accuracy(actual),
            "low": low,
            "high": high,
            "strict": sum(response.strict for response in actual) / len(actual),
            "chance": skill.chance,
            "unparsed": sum(not response.understood for response in actual),
        }
        for control in CONTROLS:
            asked = _of(responses.get(control, ()), name)
            right = sum(response.correct for response in asked)
            row[control] = _accuracy(asked) if asked else None
            row[f"{control}_p"] = p_above_chance(right, len(asked), skill.chance) if asked else None
        rows.append(row)
    return rows


def summarize(rows: Sequence[Row]) -> dict[str, Number]:
    """Flat numbers for the manifest: per skill, and the mean accuracy over skills."""
    summary: dict[str, Number] = {
        "samples": sum(row["samples"] for row in rows),
        "accuracy": sum(row["accuracy"] for row in rows) / len(rows),
    }
    for row in rows:
        skill = row["skill"]
        summary |= {
            f"{skill}/accuracy": row["accuracy"],
            f"{skill}/accuracy_low": row["low"],
            f"{skill}/accuracy_high": row["high"],
            f"{skill}/strict": row["strict"],
            f"{skill}/chance": row["chance"],
            f"{skill}/samples": row["samples"],
            f"{skill}/unparsed": row["unparsed"],
        }
        measured = [name for control in CONTROLS for name in (control, f"{control}_p") if row[name] is not None]
        summary |= {f"{skill}/{name}": row[name] for name in measured}
    return summary


def _of(responses: Sequence[Response], skill: str) -> list[Response]:
    return [response for response in responses if response.skill == skill]


def _accuracy(responses: Sequence[Response]) -> float:
    return sum(response.correct for response in responses) / len(responses)
