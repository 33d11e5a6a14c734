"""Place the run's scores among published ones, and judge whether the run reproduces one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mantis.artifacts.scores import PublishedScore, Score

NOT_COMPARABLE = "not comparable"
NOT_PARSED = "not parsed"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A benchmark's score compared with the published figure of the reference model; accuracies in percent.

    `word` is one of `reproduced`, `above`, `below`, `undecided`, `not comparable`, `not parsed` and `no paper figure`.
    `reason` explains it. `published` is also there if it is not comparable.
    """

    score: Score
    word: str
    published: float | None
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """The run's accuracy minus the published one, in percentage points; None if they cannot be compared."""
        if self.published is None or self.word in (NOT_COMPARABLE, NOT_PARSED):
            return None
        return 100 * self.score.accuracy - self.published


@dataclass(frozen=True, kw_only=True)
class ReferenceRow:
    """One model's accuracies in percent, by benchmark; None where nothing was published. `ours` marks this run."""

    model: str
    accuracies: tuple[float | None, ...]
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class ReferenceTable:
    """Published rows and this run's, best first. Rows with fewer benchmarks follow those with more."""

    benchmarks: tuple[Score, ...]
    rungs: tuple[ReferenceRow, ...]
    sources: tuple[str, ...]


def verdict_of(score: Score, reference: str, margin: float) -> Verdict:
    """Judge a score beside the published figure of the model `reference`. `margin` is in percentage points.

    | word | meaning |
    |---|---|
    | no paper figure | `reference` is empty, or the benchmark has no published row of this model |
    | not parsed | most responses hold no answer |
    | not comparable | the published figure was made in another way, or on other samples: see `reason` |
    | reproduced | the whole 95 % interval lies within `margin` of the published figure |
    | above, below | the published figure lies outside of the interval, which is not within `margin` of it |
    | undecided | the published figure lies in the interval, but the interval is too wide for `margin` |
    """
    row = next((row for row in score.paper if row.model == reference), None)
    if row is None:
        return Verdict(score=score, word="no paper figure", published=None)
    word, reason = _judge(score, row, margin)
    return Verdict(score=score, word=word, published=row.accuracy, reason=reason)


def _judge(score: Score, row: PublishedScore, margin: float) -> tuple[str, str]:
    """The word and its reason."""
    if score.unreadable:
        return NOT_PARSED, f"No answer was found in {score.unparsed:,} of {score.samples:,} responses."
    if not row.comparable:
        return NOT_COMPARABLE, row.reason or "The published figure is about other samples."
    low, high = 100 * score.low, 100 * score.high
    if row.accuracy - margin <= low and high <= row.accuracy + margin:
        return "reproduced", f"The interval lies within {margin:g} points of the published figure."
    if row.accuracy < low:
        return "above", "The published figure lies below the interval."
    if row.accuracy > high:
        return "below", "The published figure lies above the interval."
    return "undecided", f"The interval of ±{score.half_width:.1f} points is too wide for a margin of {margin:g} points."


def reference_table(benchmarks: Sequence[Score], name: str) -> ReferenceTable | None:
    """Build the table of the benchmarks that have published rows; None if none has. `name` labels this run's row."""
    shown = tuple(score for score in benchmarks if score.paper)
    if not shown:
        return None
    columns = [{row.model: row.accuracy for row in score.paper} for score in shown]
    models = list(dict.fromkeys(model for column in columns for model in column))
    rungs = [ReferenceRow(model=model, accuracies=tuple(column.get(model) for column in columns)) for model in models]
    ours = ReferenceRow(model=name, accuracies=tuple(100 * score.accuracy for score in shown), ours=True)
    sources = dict.fromkeys(row.source for score in shown for row in score.paper if row.source)
    return ReferenceTable(benchmarks=shown, rungs=tuple(sorted([*rungs, ours], key=_rank)), sources=tuple(sources))


def _rank(rung: ReferenceRow) -> tuple[int, float]:
    known = [accuracy for accuracy in rung.accuracies if accuracy is not None]
    return (-len(known), -sum(known) / len(known))
