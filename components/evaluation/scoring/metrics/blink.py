"""Scores BLINK as lmms-eval does (lmms_eval/tasks/blink/utils.py). BLINK's own code asks GPT for the option.

The response's first letter is the option, in either case. Only brackets and spaces may precede it.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import Target

LETTER = re.compile(r"[(\s]*([A-Z])[).\s]*", re.IGNORECASE)

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """Score by the rule in the module's docstring."""
    found = LETTER.match(response.strip())
    if found is None:
        return NOTHING
    letter = found[1].upper()
    return MetricResult(parsed=letter, score=float(letter in target.answers))
