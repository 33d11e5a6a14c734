"""Place the run's scores among published ones, and judge whether the run reproduces one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mantis.artifacts.scores import Score


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A benchmark's score compared with the published figure of the reference model; accuracies in percent."""

    score: Score
    word: str  # one of: reproduced, above, below, no paper figure
    published: float | None

    @property
    def difference(self) -> float | None:
        """The run's accuracy minus the published one, in percentage points."""
        return None if self.published is None else 100 * self.score.accuracy - self.published


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


def verdict_of(score: Score, reference: str) -> Verdict:
    """Judge a score: `reproduced` if the published figure lies in the 95 % interval, else `above` or `below`.

    The word is `no paper figure` in three cases:

    - `reference` is empty.
    - The benchmark has no published row of this model.
    - The published row is about other samples.
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
