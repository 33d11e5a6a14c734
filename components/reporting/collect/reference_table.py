"""Our scores among the published ones, and what that says of a run that is to reproduce one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mantis.artifacts.scores import Score


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A benchmark held to the published figure of the reference model; accuracies in percent."""

    score: Score
    word: str  # reproduced, above, below, no paper figure
    published: float | None

    @property
    def difference(self) -> float | None:
        """Percentage points, ours minus theirs."""
        return None if self.published is None else 100 * self.score.accuracy - self.published


@dataclass(frozen=True, kw_only=True)
class ReferenceRow:
    """One model over the benchmarks, in percent; None where nothing was published. `ours` marks this run's."""

    model: str
    accuracies: tuple[float | None, ...]
    ours: bool = False


@dataclass(frozen=True, kw_only=True)
class ReferenceTable:
    """Published rows and ours, best first; rows of fewer benchmarks come after those of more."""

    benchmarks: tuple[Score, ...]
    rungs: tuple[ReferenceRow, ...]
    sources: tuple[str, ...]


def verdict_of(score: Score, reference: str) -> Verdict:
    """`reproduced` where the published figure lies in the 95 % interval, else `above` or `below`.

    There is `no paper figure` where nobody named a reference, it has no row, or its row is of other samples.
    """
    rows = [row for row in score.paper if row.model == reference and row.comparable]
    if not rows:
        return Verdict(score=score, word="no paper figure", published=None)
    published = rows[0].accuracy
    if published < 100 * score.low:
        word = "above"
    elif published > 100 * score.high:
        word = "below"
    else:
        word = "reproduced"
    return Verdict(score=score, word=word, published=published)


def reference_table(benchmarks: Sequence[Score], name: str) -> ReferenceTable | None:
    """The ladder of the benchmarks that have published rows; None where none has. `name` is what ours is called."""
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
