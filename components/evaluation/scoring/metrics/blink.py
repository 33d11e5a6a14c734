"""BLINK as lmms-eval judges it (lmms_eval/tasks/blink/utils.py); BLINK's own code asks GPT for the option.

The response's first letter is the option, if but brackets and spaces stand before it, in either case.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import Target

LETTER = re.compile(r"[(\s]*([A-Z])[).\s]*", re.IGNORECASE)

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """As the module says."""
    found = LETTER.match(response.strip())
    if found is None:
        return NOTHING
    letter = found[1].upper()
    return MetricResult(parsed=letter, score=float(letter in target.answers))
