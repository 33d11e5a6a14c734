"""MVBench as TIGER-AI-Lab/Mantis judges it (mantis/benchmark/eval_on_mvbench.py).

The text behind the last of "the answer is", "answer:", "the option is " or "Answer:", whichever of them is there first
in this order, case minded; the first letter of it has to be the right one, as a capital.
"""

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import Target

LEADS = ("the answer is", "answer:", "the option is ", "Answer:")

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """As the module says. A small letter is not the capital: it is parsed, and wrong."""
    lead = next((lead for lead in LEADS if lead in response), None)
    said = response if lead is None else response.split(lead)[-1]
    first = next((character for character in said if character.isalpha()), None)
    return NOTHING if first is None else MetricResult(parsed=first, score=float(first in target.answers))
