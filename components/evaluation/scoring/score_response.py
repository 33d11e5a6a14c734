"""Scores a response against its target. The score depends on nothing else.

Every response is scored in two ways:
- `official` follows the published implementation with its weaknesses. Published figures were measured with it.
- `strict` requires the answer itself: exactly one option at the place of the answer. Of several answers, the last one
  counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

from components.evaluation.scoring.metrics.metric_result import MetricResult
from components.evaluation.scoring.targets import Target
from mantis.errors import EvaluationError

Scoring = Literal["official", "strict"]
Rule = Callable[[str, Target], MetricResult]

# Metric -> its module in metrics/, and the name of its official function there.
METRICS = {
    "mantis": ("mantis", "official"),
    "mvbench": ("mvbench", "official"),
    "blink": ("blink", "official"),
    "mmmu": ("mmmu", "official"),
    "mmbench": ("mmbench", "official"),
    "scienceqa": ("scienceqa", "official"),
    "mathvista": ("mathvista", "official"),
    "mirb": ("mirb", "official"),
    "mementos": ("mementos", "official"),
    "vqa": ("vqa", "official"),
    "vqa-evalai": ("vqa", "official_evalai"),
    "text-overlap": ("text_overlap", "official"),
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The official and the strict score, from 0 to 1. `parsed` is the answer that strict scoring found, or None."""

    official: float
    strict: float
    parsed: str | None

    def score(self, scoring: Scoring) -> float:
        """The score by the named way of scoring."""
        return self.official if scoring == "official" else self.strict


def score_response(response: str, target: Target, metric: str) -> Judgement:
    """Score a response in both ways.

    Raises:
        EvaluationError: the metric does not exist.
    """
    official, strict = rules(metric)
    reading = strict(response, target)
    return Judgement(official=official(response, target).score, strict=reading.score, parsed=reading.parsed)


@cache
def rules(metric: str) -> tuple[Rule, Rule]:
    """The official and the strict function of a metric. It raises the error of `score_response`."""
    if metric not in METRICS:
        raise EvaluationError(
            f"metric = {metric!r} is not known.", remedy=f"Choose one of {', '.join(sorted(METRICS))}."
        )
    name, official = METRICS[metric]
    module = import_module(f"components.evaluation.scoring.metrics.{name}")
    return getattr(module, official), module.strict
