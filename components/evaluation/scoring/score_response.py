"""What a response says, and what score that gets: a pure function of the response and its target.

Two profiles, always both: `official` is the published implementation that a metric follows, weaknesses included, and
what published figures were measured with. `strict` wants the answer itself: an option, once, where an answer is stated;
where one is stated twice the last counts.
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

# Metric -> its module in metrics/, and the name of its official rule there.
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
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Scores from 0 to 1 by each profile, and the answer that strict scoring found (None: none)."""

    official: float
    strict: float
    parsed: str | None

    def score(self, scoring: Scoring) -> float:
        """By the named profile."""
        return self.official if scoring == "official" else self.strict


def score_response(response: str, target: Target, metric: str) -> Judgement:
    """Score a response by both profiles.

    Raises:
        EvaluationError: there is no such metric.
    """
    official, strict = rules(metric)
    reading = strict(response, target)
    return Judgement(official=official(response, target).score, strict=reading.score, parsed=reading.parsed)


@cache
def rules(metric: str) -> tuple[Rule, Rule]:
    """The official and the strict rule of a metric; see `judge` for the error."""
    if metric not in METRICS:
        raise EvaluationError(f"metric = {metric!r} is not known.", remedy=f"Metrics: {', '.join(sorted(METRICS))}.")
    name, official = METRICS[metric]
    module = import_module(f"components.evaluation.scoring.metrics.{name}")
    return getattr(module, official), module.strict
