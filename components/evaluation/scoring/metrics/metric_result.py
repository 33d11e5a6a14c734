"""The result of a metric for one response."""

from dataclasses import dataclass

from components.evaluation.scoring.answer_extraction import strict_option
from components.evaluation.scoring.targets import Target


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """The parsed answer (None if nothing was parsed) and its score from 0 to 1."""

    parsed: str | None
    score: float


NOTHING = MetricResult(parsed=None, score=0.0)


def chosen(letter: str | None, target: Target) -> MetricResult:
    """The result of a choice: score 1 if `letter` is a right option, else 0."""
    return NOTHING if letter is None else MetricResult(parsed=letter, score=float(letter in target.answers))


def strict_choice(response: str, target: Target) -> MetricResult:
    """Score a choice strictly: the last stated answer must name exactly one option."""
    return chosen(strict_option(response, target.options), target)
