"""Scores MVBench as TIGER-AI-Lab/Mantis does (mantis/benchmark/eval_on_mvbench.py).

The first lead of LEADS that occurs counts, in the order of the list and with its case. The first letter after its last
occurrence must be the right option's capital letter. If no lead occurs, it is the first letter of the response.
"""

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import Target

LEADS = ("the answer is", "answer:", "the option is ", "Answer:")

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """Score by the rule in the module's docstring. A lower-case letter is parsed, but wrong."""
    lead = next((lead for lead in LEADS if lead in response), None)
    said = response if lead is None else response.split(lead)[-1]
    first = next((character for character in said if character.isalpha()), None)
    return NOTHING if first is None else MetricResult(parsed=first, score=float(first in target.answers))
