"""The reasons of ledgers for people: counts, examples, meanings, remedies."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from components.data.mixture.lengths import Length
from components.data.prepare.ledger import Ledger, LedgerEntry
from components.data.prepare.reasons import reason_of
from mantis.artifacts.manifest import Manifest
from mantis.showing.histogram import counts_plot, histogram
from mantis.showing.shown_data import ReasonCount, ReasonRow, ShownFinding, ShownPlot
from mantis.store.base import ObjectStore

EXAMPLES = 3  # rows that a reason names


def reason_counts(entries: Iterable[LedgerEntry]) -> tuple[ReasonCount, ...]:
    """Count the rows of each reason, drops first, then the most frequent first."""
    rows: dict[tuple[str, str, str], dict[int, LedgerEntry]] = {}
    for entry in entries:
        rows.setdefault((entry.subset, entry.action, entry.reason), {}).setdefault(entry.row, entry)
    counts = [_count(list(found.values())) for found in rows.values()]
    order = {"dropped": 0, "repaired": 1, "noted": 2}
    return tuple(sorted(counts, key=lambda each: (order[each.action], -each.rows, each.reason, each.subset)))


def _count(found: Sequence[LedgerEntry]) -> ReasonCount:
    entry, known = found[0], reason_of(found[0].reason)
    examples = [ReasonRow(row=each.row, id=each.id, value=each.value) for each in found[:EXAMPLES]]
    return ReasonCount(
        subset=entry.subset,
        action=entry.action,
        reason=entry.reason,
        rows=len(found),
        meaning=known.meaning,
        remedy=known.remedy,
        first=tuple(examples),
    )


def reasons_of_mixture(store: ObjectStore, mixture: Manifest) -> tuple[ReasonCount, ...]:
    """The reasons of a mixture and of its datasets."""
    return reason_counts(_entries(store, mixture))


def findings_of_mixture(
    store: ObjectStore, mixture: Manifest, samples: Collection[tuple[str, str]]
) -> dict[tuple[str, str], tuple[ShownFinding, ...]]:
    """The findings about `samples`, which are named by subset and id."""
    found: dict[tuple[str, str], tuple[ShownFinding, ...]] = {}
    for entry in _entries(store, mixture):
        name = (entry.subset, entry.id)
        if name in samples:
            found[name] = (*found.get(name, ()), shown_finding(entry))
    return found


def _entries(store: ObjectStore, mixture: Manifest) -> Iterator[LedgerEntry]:
    for key in (*(dataset.key for dataset in mixture.inputs.values()), mixture.key):
        yield from Ledger.load(store, key).entries


def shown_finding(entry: LedgerEntry) -> ShownFinding:
    """A ledger's entry with its meaning and remedy."""
    known = reason_of(entry.reason)
    return ShownFinding(
        action=entry.action,
        reason=entry.reason,
        value=entry.value,
        threshold=entry.threshold,
        meaning=known.meaning,
        remedy=known.remedy,
    )


def plots_of_lengths(lengths: Iterable[Length], reasons: Iterable[ReasonCount]) -> tuple[ShownPlot, ...]:
    """As `plots_of`, of counted rows."""
    found = list(lengths)
    return plots_of([length.tokens for length in found], [length.images for length in found], reasons)


def plots_of(tokens: Sequence[int], images: Sequence[int], reasons: Iterable[ReasonCount]) -> tuple[ShownPlot, ...]:
    """Distributions of the samples' tokens and images, and the rows by reason of a drop or a repair."""
    counts: dict[str, dict[str, int]] = {"dropped": {}, "repaired": {}}
    for each in reasons:
        by_reason = counts.setdefault(each.action, {})
        by_reason[each.reason] = by_reason.get(each.reason, 0) + each.rows
    return (
        histogram("Tokens per sample", "samples", tokens),
        histogram("Images per sample", "samples", images),
        counts_plot("Dropped rows by reason", "rows", counts["dropped"]),
        counts_plot("Repaired rows by reason", "rows", counts["repaired"]),
    )
