"""Names and figures for MLflow: which metric names it takes, and what it shows of the scores."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mantis.hashing import fingerprint

SCORE = "score"  # a name without `/` stands behind the curves: MLflow sorts its sections by the part before it
SCORE_TABLE = "scores.json"  # the artifact
TABLE_COLUMNS = (
    *("benchmark", "skill", "samples", "accuracy", "low", "high", "official", "strict", "chance"),
    *("blind", "shuffled", "unparsed", "missing"),
)
REFUSED_CHARACTERS = re.compile(r"[^\w.\- :]")  # in a part of a metric's name (mlflow/utils/validation.py)
METRIC_CHARACTERS = 250  # of a name
NAME_CHARACTERS = 80  # of a part: MLflow takes 250 for a name, which has two free parts


def score_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Turn rows of scores.json into metrics `score.<benchmark>`, and `score.mean` over the benchmarks to sort by.

    A benchmark's score is its overall accuracy, or the mean over its skills if it has none. `metric_part` replaces
    the characters that MLflow refuses.
    """
    by_benchmark: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_benchmark.setdefault(row["benchmark"], []).append(row)
    metrics: dict[str, float] = {}
    for benchmark, skills in by_benchmark.items():
        whole = [row for row in skills if row.get("aggregation")] or skills
        metrics[f"{SCORE}.{metric_part(benchmark)}"] = sum(float(row["accuracy"]) for row in whole) / len(whole)
    if metrics:
        metrics[f"{SCORE}.mean"] = sum(metrics.values()) / len(metrics)
    return metrics


def score_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Turn rows of scores.json into the JSON of a table that MLflow shows and `mlflow.load_table` reads."""
    data = [[row.get(column) for column in TABLE_COLUMNS] for row in rows]
    return json.dumps({"columns": TABLE_COLUMNS, "data": data})


def is_metric_name(name: str) -> bool:
    """Whether MLflow takes a metric of this name (mlflow/utils/validation.py)."""
    parts = name.split("/")
    return len(name) <= METRIC_CHARACTERS and all(
        part.strip(".") and not REFUSED_CHARACTERS.search(part) for part in parts
    )


def metric_part(name: str) -> str:
    """`name` as a part of a metric's name. A name that MLflow refuses gets `_` for each refused character.

    A hash of the name stands behind it then, so that two such names stay two.
    """
    plain = REFUSED_CHARACTERS.sub("_", name)
    if plain == name and name.strip(".") and len(name) <= NAME_CHARACTERS:
        return name
    return f"{plain[:NAME_CHARACTERS]}-{fingerprint(name)[:6]}"
