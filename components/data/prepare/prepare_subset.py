"""One subset: every row read, checked, and kept in a Lance table or written to the ledger."""

import logging
from itertools import groupby

from components.data.prepare.fragments import (
    FRAGMENT_ROWS,
    SCHEMA,
    Fragment,
    FragmentWriter,
    content_of,
    read_fragments,
)
from components.data.prepare.ledger import Ledger
from components.data.prepare.row_validator import RowLimits, RowValidator
from components.data.sources.source import RowSource
from mantis.artifacts.manifest import Number
from mantis.errors import InputError, IntegrityError
from mantis.store.base import ObjectStore
from mantis.store.lance_tables import commit_fragments

logger = logging.getLogger(__name__)

DATA = "data.lance"


def prepare_subset(
    store: ObjectStore,
    prefix: str,
    subset: str,
    source: RowSource,
    *,
    limits: RowLimits,
    workers: int,
    fragment_rows: int = FRAGMENT_ROWS,
) -> dict[str, Number]:
    """Write `<prefix>/data.lance` and `<prefix>/ledger.parquet`; returns the counts for the manifest.

    Fragments that an earlier attempt recorded are kept; the result, `content` of the summary included, is the same
    whatever was killed before and with any number of workers. Memory holds a few rows per thread and a few batches,
    whatever the subset's size, and the ids of its rows.

    Raises:
        InputError: the source cannot be read, or no row of it can be used.
        IntegrityError: rows were lost on the way.
    """
    recorded = read_fragments(store, prefix)
    if recorded:
        before = sum(part.rows for part in recorded.values())
        logger.info("%s: preparation continues after %s rows", subset, f"{before:,}")
    checker = RowValidator(subset, source, limits, workers)

    def first_of(number: int) -> int:
        return number - number % fragment_rows

    with FragmentWriter(store, prefix, f"{prefix}/{DATA}") as writer:
        outcomes = checker.outcomes(lambda number: first_of(number) not in recorded)
        for first, rows in groupby(outcomes, key=lambda outcome: first_of(outcome.number)):
            writer.write(first, rows)
        written = writer.finish()
    fragments = sorted([*recorded.values(), *written], key=lambda fragment: fragment.first)
    return _commit(store, prefix, subset, source, fragments, read=checker.read)


def _commit(
    store: ObjectStore, prefix: str, subset: str, source: RowSource, fragments: list[Fragment], *, read: int
) -> dict[str, Number]:
    """One table and one ledger of all fragments."""
    ledger = Ledger()
    for fragment in fragments:
        ledger.extend(fragment.ledger)
    kept = sum(fragment.kept for fragment in fragments)
    if not kept:
        raise InputError(
            f"{source.url}: none of {read} rows can be used ({ledger.reasons()}).",
            remedy=_first_reason(ledger) or "Put rows into it.",
        )
    tables = [table for fragment in fragments for table in fragment.table]
    rows = commit_fragments(store, f"{prefix}/{DATA}", SCHEMA, tables)
    if rows != kept or kept + ledger.dropped != read:
        raise IntegrityError(
            f"{subset}: {read} rows were read, but {rows} written and {ledger.dropped} dropped.",
            remedy=f"Delete {store.uri(prefix)} and run it again; if it stays, report it.",
        )
    ledger.save(store, prefix)
    logger.info("%s: kept %s of %s rows. Ledger: %s", subset, f"{kept:,}", f"{read:,}", ledger.reasons())
    return {
        "rows": read,
        "kept": kept,
        "dropped": ledger.dropped,
        "repaired": ledger.repaired,
        "images": sum(fragment.images for fragment in fragments),
        "image_bytes": sum(fragment.image_bytes for fragment in fragments),
        "content": content_of(fragments),
    }


def _first_reason(ledger: Ledger) -> str:
    first = next((entry for entry in ledger.entries if entry.action == "dropped"), None)
    return f"The first one: row {first.row}, {first.reason}: {first.value}." if first else ""
