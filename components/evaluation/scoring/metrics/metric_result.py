"""What a metric says about a response."""

from dataclasses import dataclass

from components.evaluation.scoring.answer_extraction import strict_option
from components.evaluation.scoring.targets import Target


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """The answer that was found (None: none) and its score from 0 to 1."""

    parsed: str | None
    score: float


NOTHING = MetricResult(parsed=None, score=0.0)


def chosen(letter: str | None, target: Target) -> MetricResult:
    """The reading of a choice."""
    return NOTHING if letter is None else MetricResult(parsed=letter, score=float(letter in target.answers))


def strict_choice(response: str, target: Target) -> MetricResult:
    """A choice is parsed only where the option stands there, once; the last statement counts."""
    return chosen(strict_option(response, target.options), target)
