"""Mantis-Eval, NLVR2 and Q-Bench2 as TIGER-AI-Lab/Mantis judges them (mantis/benchmark/eval.py).

Of what follows "final answer:" ("the answer is", "answer:"), the first letter at all is the option where it is an
option's letter: "Both images..." is B. Else the whole response has to be the right option's text; for true or false,
has to hold the one word and not the other. Short answers have to be equal but for case.
"""

import re

from components.evaluation.scoring.answer_extraction import after_lead, letter_of, stated
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen, strict_choice
from components.evaluation.scoring.targets import CHOICES, Target

TWICE = re.compile("Answer: [A-Z]")  # behind another lead: get_option looks past it


def official(response: str, target: Target) -> MetricResult:
    """As the module says."""
    said = after_lead(response, last=False).strip()
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
    """Choices as everywhere; a short answer has to be what is stated last, but for case and a full stop."""
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
