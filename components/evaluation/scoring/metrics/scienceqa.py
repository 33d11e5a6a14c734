"""Scores ScienceQA as lmms-eval does (lmms_eval/tasks/scienceqa/utils.py), which follows LLaVA.

The response must be the letter, or begin with a capital letter and a full stop: "B. sample". Any other form is wrong.
"""

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import Target

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """Score by the rule in the module's docstring."""
    said = response.strip()
    if len(said) == 1 and said.upper() in target.letters:
        return chosen(said.upper(), target)
    if len(said) >= 2 and said[0].isupper() and said[1] == ".":
        return MetricResult(parsed=said[0], score=float(said[0] in target.answers))
    return NOTHING
