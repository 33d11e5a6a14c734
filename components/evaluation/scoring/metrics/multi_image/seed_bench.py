"""SEED-Bench-2 as lmms-eval scores it: the first character of the response.

Source: EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/seedbench_2/utils.py, seed_process_result. The authors rank the
losses of the four options instead (AILab-CVC/SEED-Bench, SEED-Bench-2/eval.py).
"""

from components.evaluation.scoring.metrics.metric_result import MetricResult, chosen, strict_choice
from components.evaluation.scoring.targets import Target


def official(response: str, target: Target) -> MetricResult:
    """Take the first character after blanks as the answer."""
    return chosen(response.strip()[:1] or None, target)


strict = strict_choice
