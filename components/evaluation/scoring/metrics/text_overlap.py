"""Compares an answer in free text with a reference: token F1 and exact match, as SQuAD defines them.

Source: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv 1606.05250, section 6.1,
and its evaluate-v1.1.py: lower case, without punctuation, articles and repeated blanks. Here punctuation is that of
Unicode. With several references the best one counts.
"""

import re
import unicodedata
from collections import Counter

from components.evaluation.scoring.metrics.metric_result import MetricResult
from components.evaluation.scoring.targets import Target

ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def official(response: str, target: Target) -> MetricResult:
    """Token F1: the harmonic mean of precision and recall over the words of response and reference."""
    said = normalized(response)
    return _result(said, max(_f1(said.split(), normalized(answer).split()) for answer in target.answers))


def strict(response: str, target: Target) -> MetricResult:
    """Exact match after normalization: 1 or 0."""
    said = normalized(response)
    return _result(said, float(any(said == normalized(answer) for answer in target.answers)))


def normalized(text: str) -> str:
    """The text in lower case, without punctuation, articles and repeated blanks."""
    plain = "".join(character for character in text.lower() if unicodedata.category(character)[0] != "P")
    return " ".join(ARTICLES.sub(" ", plain).split())


def _f1(said: list[str], expected: list[str]) -> float:
    if not said or not expected:
        return float(said == expected)
    same = (Counter(said) & Counter(expected)).total()
    return 2 * same / (len(said) + len(expected))


def _result(said: str, score: float) -> MetricResult:
    return MetricResult(score=score, parsed=said or None)
