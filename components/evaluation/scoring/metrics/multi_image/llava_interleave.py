"""LLaVA-Interleave-Bench: an option's letter for choices, ROUGE-L for open questions.

Source: EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/llava_interleave_bench/utils.py, mcq_acc and oe_rogue. ROUGE-L is
that of the package `rouge` 1.0.1, rouge_l_summary_level. It takes sets of words, and the union of the longest common
subsequences of all pairs of sentences.
"""

import re

from components.evaluation.scoring.metrics.metric_result import NOTHING, MetricResult
from components.evaluation.scoring.metrics.text_overlap import normalized
from components.evaluation.scoring.targets import Target

OPTION = re.compile(r"^([A-E])\.\s*(.+)$", re.IGNORECASE)
LETTER = re.compile(r"\b([A-E])\b", re.IGNORECASE)
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBER_WITH_COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
MOST_PERIODS = 32  # the source passes the flag re.UNICODE in the place of the count
LONGEST = 512  # characters of an answer to an open question


def official(response: str, target: Target) -> MetricResult:
    """Score a choice by its letter, an open question by the F of ROUGE-L."""
    if target.details["question_type"] == "multi-choice":
        said = _letter(response)
        return MetricResult(parsed=said or None, score=float(said == _letter(target.answers[0])))
    cut = response[:LONGEST]
    return MetricResult(parsed=cut or None, score=_rouge_l(cut, target.answers[0]))


def strict(response: str, target: Target) -> MetricResult:
    """Accept only the answer itself, without case, punctuation and articles."""
    if target.details["question_type"] == "multi-choice":
        found = re.fullmatch(r"\(?([A-Ea-e])[.)]?", response.strip())
        if not found:
            return NOTHING
        return MetricResult(parsed=found[1], score=float(found[1].upper() == _letter(target.answers[0])))
    said = normalized(response)
    return MetricResult(parsed=said or None, score=float(said == normalized(target.answers[0])))


def _letter(text: str) -> str:
    """The letter that the text states, else the text itself in a plain form."""
    option = OPTION.match(text.strip())
    if option:
        return option[1].upper()
    plain = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    for character in "'\")(":
        plain = plain.strip(character)
    plain = plain.strip().lower()
    letter = LETTER.search(plain)
    return letter[1].upper() if letter else plain


def _without_punctuation(text: str) -> str:
    plain, with_comma = text, NUMBER_WITH_COMMA.search(text) is not None
    for mark in PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside_blank or with_comma else " ")
    return PERIOD.sub("", plain, count=MOST_PERIODS)


def _rouge_l(response: str, reference: str) -> float:
    said, expected = _sentences(response), _sentences(reference)
    if not said or not expected:
        return 0.0
    common: set[str] = set()
    for sentence in expected:
        for candidate in said:
            common |= _common_words(sentence, candidate)
    precision = len(common) / len({word for sentence in said for word in sentence})
    recall = len(common) / len({word for sentence in expected for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> list[list[str]]:
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _common_words(first: list[str], second: list[str]) -> set[str]:
    """The words of a longest common subsequence of two lists of words."""
    table = [[0] * (len(second) + 1)]
    for word in first:
        row, above = [0], table[-1]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
        table.append(row)
    words, at, other_at = set(), len(first), len(second)
    while at and other_at:
        if first[at - 1] == second[other_at - 1]:
            words.add(first[at - 1])
            at, other_at = at - 1, other_at - 1
        elif table[at - 1][other_at] > table[at][other_at - 1]:
            at -= 1
        else:
            other_at -= 1
    return words
