"""Scores Mantis-Eval, NLVR2 and Q-Bench2 as TIGER-AI-Lab/Mantis does (mantis/benchmark/eval.py).

The answer is the text after "final answer:", "the answer is" or "answer:". The first rule that applies decides:
1. A short answer must equal the right one, except for case.
2. If the answer's first letter is an option's letter, it is the option. So "Both images..." means B.
3. A true-or-false response must hold one of the two words and not the other.
4. The whole response must equal an option's text.
"""

import re

from components.evaluation.scoring.answer_extraction import after_lead, letter_of, stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen, strict_choice
from components.evaluation.scoring.targets import CHOICES, Target

TWICE = re.compile("Answer: [A-Z]")  # after another lead; the official get_option skips it too


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
    said = after_lead(response).strip()
    if target.kind not in CHOICES:
        equal = any(said.lower() == answer.lower() for answer in target.answers)
        return MetricResult(parsed=said or None, score=float(equal))
    named = said[8] if TWICE.match(said) else said
    first = next((character.upper() for character in named if character.isalpha()), "")
    if first and first in target.letters:
        return chosen(first, target)
    if target.kind == "true-false":
        return chosen(_true_or_false(response, target), target)
    return chosen(letter_of(response.strip(), tuple(option.strip() for option in target.options)), target)


def strict(response: str, target: Target) -> MetricResult:
    """Score choices by `strict_choice`. A short answer must equal the stated answer, except for case and full stop."""
    if target.kind in CHOICES:
        return strict_choice(response, target)
    said = stated(response).casefold()
    if not said or (target.options and said not in [option.casefold() for option in target.options]):
        return NOTHING
    equal = said in [answer.strip().casefold() for answer in target.answers]
    return MetricResult(parsed=said, score=float(equal))


def _true_or_false(response: str, target: Target) -> str | None:
    lowered = response.lower()
    said = [word for word in ("true", "false") if word in lowered]
    return letter_of(said[0], tuple(option.strip().lower() for option in target.options)) if len(said) == 1 else None
