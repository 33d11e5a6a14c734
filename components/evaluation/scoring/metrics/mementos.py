"""Scores Mementos by keyword lists (umd-huang-lab/Mementos, GPT-4-assisted_evaluation.ipynb), but without GPT-4.

Officially, GPT-4 lists the objects and behaviours of the reference and of the response. Graphs merge synonyms, and the
F1 of each list compares the two sets.

Here the benchmark's files hold the reference's lists and the synonyms. A response's lists are the keywords of the whole
subset that occur in it, with any of a few endings. So only keywords of other samples count as false positives, and the
scores cannot be compared with published ones.
"""

import re
from functools import lru_cache

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.targets import Target

LISTS = ("objects", "behaviors")
WORD = re.compile(r"[a-z0-9']+")
ENDINGS = re.compile(r"(?:ing|ed|es|s|e)$")
STEM = 3  # letters that an ending must leave


def official(response: str, target: Target) -> MetricResult:
    """Mean of the F1 of objects and the F1 of behaviours. Synonyms and inflections count as the keyword."""
    return _read(response, target, synonyms=True)


def strict(response: str, target: Target) -> MetricResult:
    """The same mean without synonyms: only the keyword and its inflections count."""
    return _read(response, target, synonyms=False)


def f1(right: frozenset[str], said: frozenset[str]) -> float:
    """F1 of the set `said` against the set `right`: the harmonic mean of precision and recall."""
    common = len(right & said)
    return 2 * common / (len(right) + len(said)) if common else 0.0


def _read(response: str, target: Target, *, synonyms: bool) -> MetricResult:
    words = _stems(response)
    if not words:
        return NOTHING
    phrases, scores, found = _phrases(words, target), [], []
    for name in LISTS:
        right = frozenset(target.details[name])
        if not right:
            continue
        vocabulary = tuple(sorted({*right, *target.details["vocabulary"][name]}))
        alike = target.details["synonyms"] if synonyms else {}
        said = frozenset(
            keyword
            for keyword in vocabulary
            if any(_stemmed(form) in phrases for form in (keyword, *alike.get(keyword, ())))
        )
        scores.append(f1(right, said))
        found += sorted(said)
    parsed = ", ".join(found) or None
    return MetricResult(parsed=parsed, score=sum(scores) / len(scores) if scores else 0.0)


def _phrases(words: list[str], target: Target) -> set[str]:
    """All sequences of words in a text, up to the number of words of the longest keyword."""
    forms = [form for name in LISTS for form in (*target.details[name], *target.details["vocabulary"][name])]
    forms += [form for alike in target.details["synonyms"].values() for form in alike]
    longest = max((_stemmed(form).count(" ") + 1 for form in forms), default=1)
    return {" ".join(words[at : at + size]) for size in range(1, longest + 1) for at in range(len(words))}


@lru_cache(maxsize=65_536)
def _stemmed(keyword: str) -> str:
    return " ".join(_stems(keyword))


def _stems(text: str) -> list[str]:
    words = (word.removesuffix("'s") for word in WORD.findall(text.lower()))
    return [stem if len(stem := ENDINGS.sub("", word)) >= STEM else word for word in words]
