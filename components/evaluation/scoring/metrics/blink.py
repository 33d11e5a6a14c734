"""Scores BLINK by its own rule (zeyofu/BLINK_Benchmark, eval/test_benchmark.py, analyze_answer), but without GPT-3.5.

The official code decides alone where a response is plain. The first rule that applies gives the option:
1. the response is exactly a letter, "B" or "(B)";
2. exactly one "(X)" is a word of the last paragraph;
3. exactly one "(X)" is a word of the whole response.

It asks GPT-3.5 about any other response. The following rules stand in for that model:
4. the option that strict scoring finds;
5. the only "(X)" anywhere;
6. VLMEvalKit's exact matching (`mmbench.inferred`).

End tokens and the spaces around a response do not count.

`lmms_eval` is another rule, that of lmms-eval (lmms_eval/tasks/blink/utils.py): the first letter of the response is the
option, in either case. So it reads "Answer: B" as A. Only brackets and spaces may precede the letter.
"""

import re

from components.evaluation.scoring.answer_extraction import single_bracket, strict_option
from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult, chosen
from components.evaluation.scoring.metrics.metric_result import strict_choice as strict
from components.evaluation.scoring.metrics.mmbench import inferred
from components.evaluation.scoring.response_text import without_tokens
from components.evaluation.scoring.targets import LETTERS, Target

EXACT = {form: letter for letter in LETTERS[:5] for form in (letter, f"({letter})")}  # of any question, as officially

LETTER = re.compile(r"[(\s]*([A-Z])[).\s]*", re.IGNORECASE)

__all__ = ["lmms_eval", "official", "strict"]


def official(response: str, target: Target) -> MetricResult:
    """Score by the rules in the module's docstring."""
    said = without_tokens(response).strip()
    letter = decided(said, target.letters) or strict_option(said, target.options)
    return chosen(letter or single_bracket(said, target.letters) or inferred(said, target), target)


def lmms_eval(response: str, target: Target) -> MetricResult:
    """Score by the rule of lmms-eval."""
    found = LETTER.match(response.strip())
    if found is None:
        return NOTHING
    letter = found[1].upper()
    return MetricResult(parsed=letter, score=float(letter in target.answers))


def decided(response: str, letters: str) -> str | None:
    """The letter that the official code finds by itself; None if it would ask GPT-3.5."""
    if response in EXACT:
        return EXACT[response]
    choices = {f"({letter})" for letter in letters}
    for text in (response.split("\n\n")[-1], response):
        named = choices.intersection(text.split())
        if len(named) == 1:
            return named.pop()[1]
    return None
