"""Scores ScienceQA as LLaVA does (haotian-liu/LLaVA, llava/eval/eval_science_qa.py), and else as lmms-eval does.

The first rule that applies gives the option:
1. the response is a capital letter (LLaVA), or a letter in either case (lmms-eval, lmms_eval/tasks/scienceqa/utils.py);
2. it begins with a capital letter, a full stop and a space: "B. sample" (LLaVA);
3. it holds "The answer is X" exactly once, with any character behind the letter (LLaVA; the authors' own
   models/run_gpt3.py in lupantech/ScienceQA);
4. it begins with a capital letter and a full stop (lmms-eval).

Any other form is wrong for LLaVA, and so for `official`. run_gpt3.py draws a random option for it. `random_guess` gives
such a response the expected value of the draw, 1 / the number of options.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.targets import LETTERS, Target

STATEMENT = re.compile(r"The answer is ([A-Z]).")
OPTIONS = LETTERS[:5]  # those of LLaVA, for any question

__all__ = ["official", "random_guess", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
    letter = _letter(response, target)
    return NOTHING if letter is None else MetricResult(parsed=letter, score=float(letter in target.answers))


def random_guess(_: str, target: Target, read: MetricResult) -> MetricResult:
    """Score as `official` does, with the expected value of the random option that run_gpt3.py draws."""
    if read.parsed is not None and read.parsed in target.letters:
        return read
    return MetricResult(parsed=None, score=1 / len(target.options))


def _letter(response: str, target: Target) -> str | None:
    said = response.strip()
    if len(said) == 1 and (said in OPTIONS or said.upper() in target.letters):
        return said.upper()
    dotted = len(said) >= 2 and said[0].isupper() and said[1] == "."
    if dotted and said[0] in OPTIONS and said[2:3] == " ":
        return said[0]
    stated = STATEMENT.findall(said)
    if len(stated) == 1:
        return str(stated[0])
    return said[0] if dotted else None
