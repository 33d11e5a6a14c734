"""Decides which published results a score can be compared with.

Both must have the same split and number of samples, and the same conditions:

- `scoring`: `official` or `strict`, or the reader of the answers, e.g. GPT-3.5;
- `prompt`: the profile that asked;
- `decoding`: how responses were generated, e.g. `greedy 512`, which is at most 512 new tokens;
- `layout`: `sequence` or `merge`.

A condition that is unknown for the score, as for a file of somebody else's responses, is taken for granted. A condition
that the source of a published result does not state makes the result incomparable.
"""

from collections.abc import Mapping

from components.evaluation.benchmarks.benchmark_catalog import Benchmark, PaperRow
from mantis.artifacts.scores import PublishedScore, Score

OF_A_SKILL = "Published figures are of the whole benchmark."
NONE_PUBLISHED = "No published figure is known."
CONDITIONS = ("scoring", "prompt", "decoding", "layout")


def published(row: Score, benchmark: Benchmark) -> Score:
    """Put the published results into the headline of a benchmark, and say whether one of them is comparable."""
    if not row.overall:
        return row.model_copy(update={"reason": OF_A_SKILL if benchmark.paper else NONE_PUBLISHED})
    paper = tuple(_published(each, row, benchmark) for each in benchmark.paper)
    comparable = any(each.comparable for each in paper)
    reasons = [each.reason for each in paper] or [NONE_PUBLISHED]
    reason = "" if comparable else max(reasons, key=reasons.count)
    return row.model_copy(update={"paper": paper, "comparable": comparable, "reason": reason})


def _published(each: PaperRow, row: Score, benchmark: Benchmark) -> PublishedScore:
    conditions = {name: value for name in CONDITIONS if (value := getattr(each, name)) is not None}
    reason = _samples_differ(each, row, benchmark) or _conditions_differ(conditions, row.conditions)
    return PublishedScore(
        model=each.model,
        accuracy=each.accuracy,
        source=each.source,
        split=each.split,
        samples=each.samples,
        conditions=conditions,
        comparable=not reason,
        reason=reason,
    )


def _samples_differ(each: PaperRow, row: Score, benchmark: Benchmark) -> str:
    """The reason why the published result is about other samples; empty if it is about the same."""
    if each.split != benchmark.split:
        return f"The published figure is on {each.split}, this score on {benchmark.split}."
    if row.missing:
        return f"{row.missing:,} of {row.samples + row.missing:,} samples are missing."
    if each.samples is None:
        return "The source does not state the number of samples."
    if each.samples != row.samples:
        return f"The published figure is over {each.samples:,} samples, this score over {row.samples:,}."
    return ""


def _conditions_differ(stated: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The reason why the published result was made in another way; empty if it was made in the same."""
    for name in CONDITIONS:
        if name not in stated:
            return f"The source does not state its {name}."
        if name in here and stated[name] != here[name]:
            return f"The published figure has {name} {stated[name]}, this score has {name} {here[name]}."
    return ""
