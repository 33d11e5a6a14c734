"""MMBench by VLMEvalKit's exact matching (vlmeval/utils/matching_util.py, can_infer); its GPT fallback is left out.

The one option's letter that stands as a word by itself, if at most four words follow it; else the letter behind "answer
is"; else the one option whose text occurs. A question is asked with its options rotated, and is right only when all of
its rows are: the benchmark's `unit` sees to that.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import Target

SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
VERBOSE = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
FOLLOWING = 4  # words behind the letter, at most

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """As the module says."""
    if any(refusal in response for refusal in REFUSALS):
        return NOTHING
    return chosen(_option(response, target.letters) or _text(response, target), target)


def _option(response: str, letters: str) -> str | None:
    words = response.translate(SEPARATORS).split()
    named = [letter for letter in letters if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - FOLLOWING:
        return named[0]
    found = VERBOSE.search(response)
    return found[1].upper() if found and found[1].upper() in letters else None


def _text(response: str, target: Target) -> str | None:
    lowered = response.lower()
    if len(lowered) > 2 * sum(len(option) for option in target.options):
        return None
    named = [letter for letter, option in zip(target.letters, target.options, strict=True) if option.lower() in lowered]
    return named[0] if len(named) == 1 else None
