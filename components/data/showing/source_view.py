"""Shows rows of a source: what preparation and the mixture make of them, without storing anything."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from components.data.mixture.lengths import Length
from components.data.prepare.ledger import LedgerEntry
from components.data.prepare.row_validator import CheckedRow, RowLimits, RowValidator, limits_of
from components.data.showing.raw_rows import FirstRows, raw_rows, refused_row
from components.data.showing.sample_counter import SampleCounter, counting
from components.data.showing.selection import Selection
from components.data.showing.shown_reasons import plots_of_lengths, reason_counts, shown_finding
from components.data.sources.source import RowSource
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, InputError
from mantis.showing.shown_data import ShownData, ShownRow
from mantis.store.base import ObjectStore


@dataclass(kw_only=True)
class _ReadRows:
    """Rows of a source that were checked. `kept` has columns of data.lance, `shown` the rows to show by number."""

    read: int = 0
    kept: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[int, CheckedRow] = field(default_factory=dict)
    ledger: list[LedgerEntry] = field(default_factory=list)


def show_source(store: ObjectStore, recipe: Recipe, source: RowSource, chosen: Selection) -> ShownData:
    """Check the chosen rows of a source, and show them as a training of `recipe` would read them.

    `store` holds the weights of the recipe's model.

    Raises:
        InputError: the source cannot be read or is empty.
        ConfigError: the source has no row with a number of `chosen.rows`.
    """
    limits = limits_of(recipe.data, source.name)
    found = _read(source, limits, recipe.data.workers, chosen)
    if not found.read:
        raise InputError(f"{source.url} ({source.described()}) has no row.", remedy="Put rows into the source.")
    raw = raw_rows(source, frozenset(chosen.numbers))
    missing = [number for number in chosen.rows if number not in raw]
    if missing:
        raise ConfigError(
            f"--row {missing[0]}: the source has no such row.", remedy="Rows are counted from 0, in their order."
        )
    with counting(store, recipe, source.name, found.kept) as counter:
        lengths, ledger = counter.lengths(found.kept)
        entries = [*found.ledger, *ledger.entries]
        about = {number: [entry for entry in entries if entry.row == number] for number in chosen.numbers}
        reasons = reason_counts(entries)
        return ShownData(
            kind="source",
            name=source.url,
            facts={
                "form": source.described(),
                "rows read": found.read,
                "samples": len(lengths),
                "dropped": found.read - len(lengths),
                **counter.facts(),
            },
            notes=counter.notes(),
            rows=tuple(
                _kept(counter, found, number, lengths.get(number), about[number])
                if number in found.shown
                else _refused(source, number, raw[number], about[number], limits)
                for number in chosen.numbers
                if number in raw
            ),
            reasons=reasons,
            plots=plots_of_lengths(lengths.values(), reasons),
        )


def _kept(
    counter: SampleCounter, found: _ReadRows, number: int, length: Length | None, entries: Sequence[LedgerEntry]
) -> ShownRow:
    """A row that preparation keeps. Without a length the mixture leaves it out."""
    checked = found.shown[number]
    images = [image.data for image in checked.images]
    paths = [image.path for image in checked.images]
    row = counter.view(_as_stored(checked), length, images, paths)
    return row.model_copy(update={"findings": tuple(map(shown_finding, entries)), "dropped": length is None})


def _read(source: RowSource, limits: RowLimits, workers: int, chosen: Selection) -> _ReadRows:
    shown = frozenset(chosen.numbers)
    last = max(chosen.read - 1, *shown)
    bounded = replace(source, rows=FirstRows(stream=source.rows, last=last))
    found = _ReadRows()
    for outcome in RowValidator(source.name, bounded, limits, workers).outcomes(
        lambda number: number < chosen.read or number in shown
    ):
        found.read += 1
        found.ledger += outcome.ledger
        if outcome.row is not None:
            found.kept.append(_as_stored(outcome.row))
            if outcome.number in shown:
                found.shown[outcome.number] = outcome.row
    return found


def _as_stored(row: CheckedRow) -> dict[str, Any]:
    """The columns of data.lance that training reads, without images."""
    said = row.conversation.said
    return {
        "row": row.number,
        "id": row.conversation.id,
        "roles": [role for role, _, _ in said],
        "contents": [content for _, content, _ in said],
        "learned": [learned for _, _, learned in said],
        "weight": row.conversation.weight,
        "widths": [image.width for image in row.images],
        "heights": [image.height for image in row.images],
    }


def _refused(source: RowSource, number: int, raw: Any, entries: Sequence[LedgerEntry], limits: RowLimits) -> ShownRow:
    name = next((entry.id for entry in entries), "")
    return refused_row(source, number, name, raw, findings=tuple(map(shown_finding, entries)), limits=limits)
