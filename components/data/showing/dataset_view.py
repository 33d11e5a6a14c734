"""Shows rows of a prepared set in the store."""

from collections.abc import Sequence
from typing import Any

from components.data.mixture.assemble import TEXT
from components.data.mixture.lengths import Length
from components.data.prepare.ledger import Ledger, LedgerEntry
from components.data.prepare.prepare_subset import DATA
from components.data.showing.sample_counter import SampleCounter, counting
from components.data.showing.selection import Selection
from components.data.showing.shown_reasons import plots_of_lengths, reason_counts, shown_finding
from mantis.artifacts.layout import subset_of
from mantis.artifacts.manifest import Manifest
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError
from mantis.showing.shown_data import ShownData, ShownRow
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import open_table

STORED = [*TEXT, "images", "paths"]


def show_dataset(store: ObjectStore, recipe: Recipe, dataset: Manifest, chosen: Selection) -> ShownData:
    """Show rows of a prepared set as a training of `recipe` would read them.

    The set does not hold dropped rows: of these, the ledger's entry is shown.

    Raises:
        ConfigError: the set has no row with a number of `chosen.rows`.
    """
    subset = subset_of(dataset.key)
    table = open_table(store, f"{dataset.key}/{DATA}")
    ledger = Ledger.load(store, dataset.key)
    texts = table.take(list(range(min(chosen.read, table.count_rows()))), columns=TEXT).to_pylist()
    named = _named(table, chosen.rows) if chosen.rows else _first(table, chosen.shown)
    texts += [row for row in named if row["row"] not in {text["row"] for text in texts}]
    with counting(store, recipe, subset, texts) as counter:
        lengths, untrained = counter.lengths(texts)
        entries = [*ledger.entries, *untrained.entries]
        kept = {row["row"]: row for row in named}
        about = {number: [entry for entry in entries if entry.row == number] for number in chosen.rows or kept}
        reasons = reason_counts(entries)
        return ShownData(
            kind="dataset",
            name=dataset.key,
            facts={
                "form": str(dataset.summary.get("form", "")),
                "rows": dataset.summary["rows"],
                "kept": dataset.summary["kept"],
                "dropped": dataset.summary["dropped"],
                "rows with tokens counted": len(texts),
                **counter.facts(),
            },
            notes=counter.notes(),
            rows=tuple(
                _kept(counter, kept[number], lengths.get(number), about[number])
                if number in kept
                else _dropped(subset, number, about[number], dataset)
                for number in dict.fromkeys(chosen.rows or kept)
            ),
            reasons=reasons,
            plots=plots_of_lengths(lengths.values(), reasons),
        )


def _kept(
    counter: SampleCounter, row: dict[str, Any], length: Length | None, entries: Sequence[LedgerEntry]
) -> ShownRow:
    """A row of the set. Without a length the mixture leaves it out."""
    shown = counter.view(row, length, row["images"], row["paths"])
    return shown.model_copy(update={"findings": tuple(map(shown_finding, entries)), "dropped": length is None})


def _first(table: Any, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.take(list(range(min(count, table.count_rows()))), columns=STORED).to_pylist()
    return rows


def _named(table: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The rows with these numbers of the source, as far as they were kept."""
    wanted = ", ".join(map(str, dict.fromkeys(numbers)))
    rows: list[dict[str, Any]] = table.to_table(columns=STORED, filter=f"row IN ({wanted})").to_pylist()
    return rows


def _dropped(subset: str, number: int, entries: Sequence[LedgerEntry], dataset: Manifest) -> ShownRow:
    if not entries:
        raise ConfigError(
            f"--row {number}: the set has no such row.",
            remedy=f"Its source had {dataset.summary['rows']:,} rows. They are counted from 0.",
        )
    findings = tuple(map(shown_finding, entries))
    return ShownRow(subset=subset, row=number, id=entries[0].id, dropped=True, findings=findings)
