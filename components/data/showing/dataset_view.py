"""Shows rows of a prepared set in the store."""

from collections.abc import Sequence
from typing import Any

from components.data.mixture.assemble import TEXT
from components.data.prepare.ledger import Ledger
from components.data.prepare.prepare_subset import DATA
from components.data.showing.sample_counter import counting
from components.data.showing.selection import Selection
from components.data.showing.shown_reasons import plots_of, reason_counts, shown_finding
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
        rows = []
        for number in dict.fromkeys(chosen.rows or kept):
            findings = tuple(shown_finding(entry) for entry in entries if entry.row == number)
            if number in kept:
                row = kept[number]
                shown = counter.view(row, lengths.get(number), row["images"], row["paths"])
                rows.append(shown.model_copy(update={"findings": findings, "dropped": number not in lengths}))
            else:
                rows.append(_dropped(subset, number, ledger, dataset))
        reasons = reason_counts(entries)
        return ShownData(
            kind="dataset",
            name=dataset.key,
            facts={
                "form": str(dataset.summary.get("form", "")),
                "rows": f"{dataset.summary['rows']:,}",
                "kept": f"{dataset.summary['kept']:,}",
                "dropped": f"{dataset.summary['dropped']:,}",
                "rows with tokens counted": f"{len(texts):,}",
                **counter.facts(),
            },
            notes=counter.notes(),
            rows=tuple(rows),
            reasons=reasons,
            plots=plots_of(
                [length.tokens for length in lengths.values()], [length.images for length in lengths.values()], reasons
            ),
        )


def _first(table: Any, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.take(list(range(min(count, table.count_rows()))), columns=STORED).to_pylist()
    return rows


def _named(table: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The rows with these numbers of the source, as far as they were kept."""
    wanted = ", ".join(map(str, dict.fromkeys(numbers)))
    rows: list[dict[str, Any]] = table.to_table(columns=STORED, filter=f"row IN ({wanted})").to_pylist()
    return rows


def _dropped(subset: str, number: int, ledger: Ledger, dataset: Manifest) -> ShownRow:
    own = [entry for entry in ledger.entries if entry.row == number]
    if not own:
        raise ConfigError(
            f"--row {number}: the set has no such row.",
            remedy=f"Its source had {dataset.summary['rows']:,} rows. They are counted from 0.",
        )
    return ShownRow(subset=subset, row=number, id=own[0].id, dropped=True, findings=tuple(map(shown_finding, own)))
