"""Scores MMBench by VLMEvalKit's exact matching (vlmeval/utils/matching_util.py, can_infer), without its GPT fallback.

The first rule that applies gives the option:
1. exactly one option's letter is a word of the response, among its last four words;
2. a letter follows "answer is";
3. exactly one option's text occurs in the response.

The benchmark asks each question several times with rotated options. Its `unit` groups these rows, and a unit is right
only if all of its rows are.
"""

import re

from components.evaluation.scoring.metrics.metric_result import MetricResult, chosen
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
FOLLOWING = 4  # last words of the response that may be the letter

__all__ = ["official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
    return chosen(inferred(response, target), target)


def inferred(response: str, target: Target) -> str | None:
    """The letter that can_infer finds; None for a refusal, or if no rule applies."""
    if any(refusal in response for refusal in REFUSALS):
        return None
    return _option(response, target.letters) or _text(response, target)


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
